import { ExitCode } from '../errors.js';
import type { LayerColumn, LayerReport, Method } from '../methods/method.js';
import type { MergingFiles } from '../recipe/merging.js';
import { type OperationResult, operate } from '../recipe/operation.js';
import { operationMarkdown, operationText } from '../report/operation.js';
import { checkReports, writeReports } from '../report/write.js';
import { BaseCommand } from './base.js';
import { gatesFrom, methodParameters } from './flags.js';
import { terminalProgress } from './progress.js';

/** The values of `operationFlags` or `unlearnFlags`. */
export interface OperationFlags {
  output?: string;
  force: boolean;
  'external-data'?: boolean;
  provenance: boolean;
  'dry-run': boolean;
  'keep-failed': boolean;
  calib?: string;
  samples?: number;
  forget?: string;
  retain?: string;
  reference?: string;
  relearn?: boolean;
  eval?: string | string[];
  include?: string[];
  exclude?: string[];
  task?: 'classification' | 'lm' | 'regression' | 'none';
  tokenizer?: string;
  where?: string;
  indices?: string;
  'max-drop'?: string[];
  'min-forget'?: string[];
  min?: string[];
  'max-size'?: string;
  'min-speedup'?: number;
  report?: string[];
  threads?: number;
  seed: number;
  quiet: boolean;
}

/** A command that applies one method to one model. */
export abstract class OperationCommand extends BaseCommand {
  protected async operate(
    method: Method,
    model: string,
    flags: OperationFlags,
    merging?: MergingFiles,
  ): Promise<OperationResult> {
    const reports = flags.report ?? [];
    checkReports(reports, flags.output);
    const progress = terminalProgress();
    let result: OperationResult;
    try {
      result = await operate({
        method,
        parameters: methodParameters(method, { ...flags }),
        model,
        output: flags.output,
        force: flags.force,
        externalData: flags['external-data'],
        calib: flags.calib,
        samples: flags.samples,
        forget: flags.forget,
        retain: flags.retain,
        reference: flags.reference,
        relearn: flags.relearn,
        ...(typeof flags.eval === 'string' && { eval: flags.eval }),
        merging,
        tokenizer: flags.tokenizer,
        where: flags.where,
        indices: flags.indices,
        task: flags.task,
        include: flags.include,
        exclude: flags.exclude,
        gates: gatesFrom(flags),
        dryRun: flags['dry-run'],
        keepFailed: flags['keep-failed'],
        withProvenance: flags.provenance,
        seed: flags.seed,
        threads: flags.threads,
        progress: flags.quiet ? undefined : progress.show,
      });
    } finally {
      progress.clear();
    }
    const columns: LayerColumn<LayerReport>[] = method.columns;
    await writeReports(reports, {
      json: () => result,
      markdown: () => operationMarkdown(result, columns),
    });
    if (!flags.quiet) this.log(operationText(result, columns));
    if (result.gates.some(({ passed }) => !passed)) {
      if (!this.jsonEnabled()) {
        this.logToStderr(
          `A gate failed: ${result.output ? 'the output was kept (--keep-failed)' : 'nothing was written'}.`,
        );
      }
      process.exitCode = ExitCode.gate;
    }
    return result;
  }
}
