import { mergeFlags, methodFlags } from '../../src/cli/flags.js';
import { MergeCommand } from '../../src/cli/merge-command.js';
import { soup } from '../../src/methods/merge/static/linear.js';

export default class MergeSoup extends MergeCommand {
  static override summary = soup.summary;
  static override examples = soup.examples;
  static override usage = 'merge soup A.onnx B.onnx [...] -o OUT.onnx';
  static override strict = false;
  static override flags = { ...methodFlags(soup), ...mergeFlags };

  async run() {
    const { argv, flags } = await this.parse(MergeSoup);
    return this.mergeAll(soup, argv.map(String), flags);
  }
}
