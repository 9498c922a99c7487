import { baseFlag, mergeFlags, methodFlags } from '../../src/cli/flags.js';
import { MergeCommand } from '../../src/cli/merge-command.js';
import { taskArithmetic } from '../../src/methods/merge/static/task-arithmetic.js';

export default class MergeTaskArithmetic extends MergeCommand {
  static override summary = taskArithmetic.summary;
  static override examples = taskArithmetic.examples;
  static override usage = 'merge task-arithmetic A.onnx [B.onnx ...] --base BASE.onnx -o OUT.onnx';
  static override strict = false;
  static override flags = { ...methodFlags(taskArithmetic), ...baseFlag, ...mergeFlags };

  async run() {
    const { argv, flags } = await this.parse(MergeTaskArithmetic);
    return this.mergeAll(taskArithmetic, argv.map(String), flags, flags.base);
  }
}
