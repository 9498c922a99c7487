import { Flags } from '@oclif/core';
import { BaseCommand } from '../src/cli/base.js';
import { inFile } from '../src/errors.js';
import { type Inspection, inspectModel } from '../src/evaluate/inspect.js';
import { readModel } from '../src/onnx/index.js';
import { inspectionsText, inspectText } from '../src/report/inspect.js';

export default class Inspect extends BaseCommand {
  static override summary = 'Show what is in a model: ops, parameters, sizes, zeros, layers.';
  static override examples = [
    '<%= config.bin %> inspect model.onnx',
    '<%= config.bin %> inspect model.onnx sparse.onnx',
    '<%= config.bin %> inspect model.onnx --json',
  ];
  static override strict = false;
  static override usage = 'inspect MODEL... [--json] [--weights]';
  static override flags = {
    weights: Flags.boolean({
      description: 'read every weight, for zeros and gzipped size (default: up to 1 GB)',
      allowNo: true,
    }),
  };

  async run(): Promise<Inspection[]> {
    const { argv, flags } = await this.parse(Inspect);
    const inspections: Inspection[] = [];
    for (const path of argv)
      inspections.push(
        await inFile(String(path), async () =>
          inspectModel(await readModel(String(path)), flags.weights),
        ),
      );
    if (inspections.length === 0)
      this.error('Name at least one model: resect inspect MODEL...', { exit: 2 });
    this.log(inspections.length === 1 ? inspectText(inspections[0]) : inspectionsText(inspections));
    return inspections;
  }
}
