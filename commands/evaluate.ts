import { Args, Flags } from '@oclif/core';
import { BaseCommand } from '../src/cli/base.js';
import { dataFlags, gateFlags, gatesFrom, reportFlag, runtimeFlags } from '../src/cli/flags.js';
import { terminalProgress } from '../src/cli/progress.js';
import { ExitCode } from '../src/errors.js';
import { type EvaluationResult, evaluate } from '../src/recipe/evaluation.js';
import { evaluationMarkdown, evaluationText } from '../src/report/evaluation.js';
import { checkReports, writeReports } from '../src/report/write.js';

export default class Evaluate extends BaseCommand {
  static override summary = 'Measure a model on data, alone or against its original.';
  static override examples = [
    '<%= config.bin %> evaluate model.onnx --data test.npz --task classification',
    '<%= config.bin %> evaluate sparse.onnx --data test.yaml --against model.onnx --max-drop accuracy=0.01',
    '<%= config.bin %> evaluate lm.onnx --data heldout.txt --tokenizer tokenizer.json --task lm',
  ];
  static override args = {
    model: Args.string({ description: 'the model, an .onnx file', required: true }),
  };
  static override flags = {
    data: Flags.string({
      description: 'examples to measure on',
      helpValue: 'DATA',
      required: true,
      helpGroup: 'DATA',
    }),
    against: Flags.string({ description: 'the original to compare with', helpValue: 'MODEL' }),
    samples: Flags.integer({
      description: 'examples at most (default: all)',
      min: 1,
      helpGroup: 'DATA',
    }),
    ...dataFlags,
    ...gateFlags,
    ...reportFlag,
    ...runtimeFlags,
  };

  async run(): Promise<EvaluationResult> {
    const { args, flags } = await this.parse(Evaluate);
    const reports = flags.report ?? [];
    checkReports(reports);
    const progress = terminalProgress();
    const { data, against, samples, task, tokenizer, where, indices, threads, seed } = flags;
    const result = await evaluate({
      model: args.model,
      data,
      against,
      samples,
      task,
      tokenizer,
      where,
      indices,
      threads,
      seed,
      gates: gatesFrom(flags),
      progress: flags.quiet ? undefined : progress.show,
    }).finally(progress.clear);
    await writeReports(reports, {
      json: () => result,
      markdown: () => evaluationMarkdown(result),
    });
    if (!flags.quiet) this.log(evaluationText(result));
    if (result.gates.some(({ passed }) => !passed)) process.exitCode = ExitCode.gate;
    return result;
  }
}
