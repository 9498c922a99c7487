import { Args } from '@oclif/core';
import { methodFlags, unlearnFlags } from '../../src/cli/flags.js';
import { OperationCommand } from '../../src/cli/operation-command.js';
import { ssd } from '../../src/methods/unlearn/ssd/method.js';

export default class UnlearnSsd extends OperationCommand {
  static override summary = ssd.summary;
  static override examples = ssd.examples;
  static override args = {
    model: Args.string({ description: 'the model, an .onnx file', required: true }),
  };
  static override flags = { ...methodFlags(ssd), ...unlearnFlags };

  async run() {
    const { args, flags } = await this.parse(UnlearnSsd);
    return this.operate(ssd, args.model, flags);
  }
}
