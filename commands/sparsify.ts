import { Args } from '@oclif/core';
import { methodFlags, operationFlags } from '../src/cli/flags.js';
import { OperationCommand } from '../src/cli/operation-command.js';
import { sparsify } from '../src/methods/sparsify/method.js';

export default class Sparsify extends OperationCommand {
  static override summary = sparsify.summary;
  static override examples = sparsify.examples;
  static override args = {
    model: Args.string({ description: 'the model, an .onnx file', required: true }),
  };
  static override flags = { ...methodFlags(sparsify), ...operationFlags };

  async run() {
    const { args, flags } = await this.parse(Sparsify);
    return this.operate(sparsify, args.model, flags);
  }
}
