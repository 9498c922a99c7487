import { Args } from '@oclif/core';
import { methodFlags, unlearnFlags } from '../../src/cli/flags.js';
import { OperationCommand } from '../../src/cli/operation-command.js';
import { gradientAscent } from '../../src/methods/unlearn/baselines/baselines.js';

export default class UnlearnGradientAscent extends OperationCommand {
  static override summary = gradientAscent.summary;
  static override examples = gradientAscent.examples;
  static override args = {
    model: Args.string({ description: 'the model, an .onnx file', required: true }),
  };
  static override flags = { ...methodFlags(gradientAscent), ...unlearnFlags };

  async run() {
    const { args, flags } = await this.parse(UnlearnGradientAscent);
    return this.operate(gradientAscent, args.model, flags);
  }
}
