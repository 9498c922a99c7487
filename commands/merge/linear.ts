import { mergeFlags, methodFlags } from '../../src/cli/flags.js';
import { MergeCommand } from '../../src/cli/merge-command.js';
import { linear } from '../../src/methods/merge/static/linear.js';

export default class MergeLinear extends MergeCommand {
  static override summary = linear.summary;
  static override examples = linear.examples;
  static override usage = 'merge linear A.onnx B.onnx [...] -o OUT.onnx';
  static override strict = false;
  static override flags = { ...methodFlags(linear), ...mergeFlags };

  async run() {
    const { argv, flags } = await this.parse(MergeLinear);
    return this.mergeAll(linear, argv.map(String), flags);
  }
}
