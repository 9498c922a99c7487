import { baseFlag, mergeFlags, methodFlags } from '../../src/cli/flags.js';
import { MergeCommand } from '../../src/cli/merge-command.js';
import { dare } from '../../src/methods/merge/static/dare.js';

export default class MergeDare extends MergeCommand {
  static override summary = dare.summary;
  static override examples = dare.examples;
  static override usage = 'merge dare A.onnx [B.onnx ...] --base BASE.onnx -o OUT.onnx';
  static override strict = false;
  static override flags = { ...methodFlags(dare), ...baseFlag, ...mergeFlags };

  async run() {
    const { argv, flags } = await this.parse(MergeDare);
    return this.mergeAll(dare, argv.map(String), flags, flags.base);
  }
}
