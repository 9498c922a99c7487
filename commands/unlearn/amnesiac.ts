import { Args } from '@oclif/core';
import { methodFlags, unlearnFlags } from '../../src/cli/flags.js';
import { OperationCommand } from '../../src/cli/operation-command.js';
import { amnesiac } from '../../src/methods/unlearn/baselines/baselines.js';

export default class UnlearnAmnesiac extends OperationCommand {
  static override summary = amnesiac.summary;
  static override examples = amnesiac.examples;
  static override args = {
    model: Args.string({ description: 'the model, an .onnx file', required: true }),
  };
  static override flags = { ...methodFlags(amnesiac), ...unlearnFlags };

  async run() {
    const { args, flags } = await this.parse(UnlearnAmnesiac);
    return this.operate(amnesiac, args.model, flags);
  }
}
