import { Args } from '@oclif/core';
import { BaseCommand } from '../src/cli/base.js';
import { type Difference, diffModels } from '../src/graph/diff.js';
import { readModel } from '../src/onnx/index.js';
import { diffText } from '../src/report/diff.js';

export default class Diff extends BaseCommand {
  static override summary = 'Show how two models differ. Exit code 1 if they do.';
  static override examples = [
    '<%= config.bin %> diff model.onnx sparse.onnx',
    '<%= config.bin %> diff model.onnx sparse.onnx --json',
  ];
  static override args = {
    a: Args.string({ description: 'a model', required: true }),
    b: Args.string({ description: 'another model', required: true }),
  };

  async run(): Promise<{ same: boolean; differences: Difference[] }> {
    const { args } = await this.parse(Diff);
    const differences = await diffModels(await readModel(args.a), await readModel(args.b));
    this.log(diffText(differences));
    if (differences.length > 0) process.exitCode = 1;
    return { same: differences.length === 0, differences };
  }
}
