import { Args } from '@oclif/core';
import { methodFlags, unlearnFlags } from '../../src/cli/flags.js';
import { OperationCommand } from '../../src/cli/operation-command.js';
import { laf } from '../../src/methods/unlearn/laf/method.js';

export default class UnlearnLaf extends OperationCommand {
  static override summary = laf.summary;
  static override examples = laf.examples;
  static override args = {
    model: Args.string({ description: 'the model, an .onnx file', required: true }),
  };
  static override flags = { ...methodFlags(laf), ...unlearnFlags };

  async run() {
    const { args, flags } = await this.parse(UnlearnLaf);
    return this.operate(laf, args.model, flags);
  }
}
