import { baseFlag, mergeFlags, methodFlags } from '../../src/cli/flags.js';
import { MergeCommand } from '../../src/cli/merge-command.js';
import { ties } from '../../src/methods/merge/static/ties.js';

export default class MergeTies extends MergeCommand {
  static override summary = ties.summary;
  static override examples = ties.examples;
  static override usage = 'merge ties A.onnx [B.onnx ...] --base BASE.onnx -o OUT.onnx';
  static override strict = false;
  static override flags = { ...methodFlags(ties), ...baseFlag, ...mergeFlags };

  async run() {
    const { argv, flags } = await this.parse(MergeTies);
    return this.mergeAll(ties, argv.map(String), flags, flags.base);
  }
}
