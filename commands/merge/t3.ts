import { methodFlags, pairFlags } from '../../src/cli/flags.js';
import { MergeCommand } from '../../src/cli/merge-command.js';
import { t3 } from '../../src/methods/merge/t3/method.js';

export default class MergeT3 extends MergeCommand {
  static override summary = t3.summary;
  static override examples = t3.examples;
  static override flags = { ...methodFlags(t3), ...pairFlags };

  async run() {
    const { flags } = await this.parse(MergeT3);
    return this.mergePair(t3, flags);
  }
}
