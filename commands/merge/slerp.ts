import { mergeFlags, methodFlags } from '../../src/cli/flags.js';
import { MergeCommand } from '../../src/cli/merge-command.js';
import { slerp } from '../../src/methods/merge/static/slerp.js';

export default class MergeSlerp extends MergeCommand {
  static override summary = slerp.summary;
  static override examples = slerp.examples;
  static override usage = 'merge slerp A.onnx B.onnx -o OUT.onnx';
  static override strict = false;
  static override flags = { ...methodFlags(slerp), ...mergeFlags };

  async run() {
    const { argv, flags } = await this.parse(MergeSlerp);
    return this.mergeAll(slerp, argv.map(String), flags);
  }
}
