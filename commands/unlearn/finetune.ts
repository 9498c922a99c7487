import { Args } from '@oclif/core';
import { methodFlags, unlearnFlags } from '../../src/cli/flags.js';
import { OperationCommand } from '../../src/cli/operation-command.js';
import { finetune } from '../../src/methods/unlearn/baselines/baselines.js';

export default class UnlearnFinetune extends OperationCommand {
  static override summary = finetune.summary;
  static override examples = finetune.examples;
  static override args = {
    model: Args.string({ description: 'the model, an .onnx file', required: true }),
  };
  static override flags = { ...methodFlags(finetune), ...unlearnFlags };

  async run() {
    const { args, flags } = await this.parse(UnlearnFinetune);
    return this.operate(finetune, args.model, flags);
  }
}
