import { methodFlags, pairFlags } from '../../src/cli/flags.js';
import { MergeCommand } from '../../src/cli/merge-command.js';
import { dawin } from '../../src/methods/merge/dawin/method.js';

export default class MergeDawin extends MergeCommand {
  static override summary = dawin.summary;
  static override examples = dawin.examples;
  static override flags = { ...methodFlags(dawin), ...pairFlags };

  async run() {
    const { flags } = await this.parse(MergeDawin);
    return this.mergePair(dawin, flags);
  }
}
