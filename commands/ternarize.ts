import { Args } from '@oclif/core';
import { methodFlags, operationFlags } from '../src/cli/flags.js';
import { OperationCommand } from '../src/cli/operation-command.js';
import { ternarize } from '../src/methods/ternarize/method.js';

export default class Ternarize extends OperationCommand {
  static override summary = ternarize.summary;
  static override examples = ternarize.examples;
  static override args = {
    model: Args.string({ description: 'the model, an .onnx file', required: true }),
  };
  static override flags = { ...methodFlags(ternarize), ...operationFlags };

  async run() {
    const { args, flags } = await this.parse(Ternarize);
    return this.operate(ternarize, args.model, flags);
  }
}
