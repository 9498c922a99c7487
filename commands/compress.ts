import { Args } from '@oclif/core';
import { methodFlags, operationFlags } from '../src/cli/flags.js';
import { OperationCommand } from '../src/cli/operation-command.js';
import { compress } from '../src/methods/compress/method.js';

export default class Compress extends OperationCommand {
  static override summary = compress.summary;
  static override examples = compress.examples;
  static override args = {
    model: Args.string({ description: 'the model, an .onnx file', required: true }),
  };
  static override flags = { ...methodFlags(compress), ...operationFlags };

  async run() {
    const { args, flags } = await this.parse(Compress);
    return this.operate(compress, args.model, flags);
  }
}
