import { availableParallelism } from 'node:os';
import type { z } from 'zod';
import { type Dataset, hashFiles, openDataset, sampleIndices, type Task } from '../data/index.js';
import { ExitCode, inFile, ResectError, usageError } from '../errors.js';
import { type Comparison, compareModels } from '../evaluate/compare.js';
import { collapse } from '../evaluate/forgetting/collapse.js';
import {
  absoluteDrops,
  type GateResult,
  type Gates,
  sizeLimit,
  validateGates,
} from '../evaluate/gates.js';
import { measureSize } from '../evaluate/measure.js';
import { modelInputs } from '../graph/interface.js';
import { layerMatcher } from '../methods/layer-globs.js';
import type {
  Calibration,
  LayerReport,
  Method,
  Needs,
  Progress,
  TaskData,
  TrainingStage,
} from '../methods/method.js';
import { MAX_MODEL_BYTES, readModel, writeModel } from '../onnx/index.js';
import { checkFiles } from './files.js';
import {
  checkForgettingGates,
  checkReferenceFile,
  measureForgettingOf,
  openForgettingData,
} from './forgetting.js';
import {
  checkCorruptions,
  checkMergingGates,
  filesOf,
  hashMerged,
  type MergingFiles,
  measureMerging,
  openNamedSets,
  readMerged,
} from './merging.js';
import { type Provenance, provenance, stamp } from './provenance.js';
import { refusedByRuntime, verifyWritten } from './verify.js';

/** One method on one model, from files to a file. */
export interface OperationRequest<S extends z.ZodObject> {
  method: Method<S>;
  parameters: z.input<S>;
  model: string;
  /** Not needed with `dryRun`. */
  output?: string;
  force?: boolean;
  externalData?: boolean;
  calib?: string;
  /** What is to be forgotten; `where` and `indices` choose of it. */
  forget?: string;
  /** Training examples that are to be kept; of the same file as `forget`, the rest of it. */
  retain?: string;
  /** A model retrained without the forget set, to compare with. */
  reference?: string;
  /** Also measure how soon the forget set is learnt again. */
  relearn?: boolean;
  eval?: string;
  /** Models to merge with `model`, and how the merge is measured beside them. */
  merging?: MergingFiles;
  /** Calibration examples at most, drawn with `seed`. */
  samples?: number;
  tokenizer?: string;
  where?: string;
  indices?: string;
  task?: Task;
  /** Globs on layer names. */
  include?: string[];
  exclude?: string[];
  gates?: Partial<Gates>;
  dryRun?: boolean;
  keepFailed?: boolean;
  withProvenance?: boolean;
  seed?: number;
  /** Default: all that the process may use. */
  threads?: number;
  progress?: Progress;
}

export interface OperationResult<L extends LayerReport = LayerReport> {
  method: string;
  parameters: Record<string, unknown>;
  input: { path: string; bytes: number; sha256?: string };
  /** Absent on a dry run, and when a gate failed. */
  output?: { path: string; files: string[]; bytes: number };
  calibration?: { path: string; samples: number; sha256: string };
  layers: L[];
  notes: string[];
  /** Multiply-accumulates of one example, where the method changes them. */
  macs?: { before: number; after: number };
  /** How training went, where the method trains. */
  training?: TrainingStage[];
  /** Absent on a dry run. */
  comparison?: Comparison;
  gates: GateResult[];
  provenance?: Provenance;
  seconds: number;
}

const defaultSamples = 128;

/** Calibration examples that outputs are compared on when there is no other data. */
const fidelitySamples = 8;

/**
 * Applies a method: reads, edits, writes to a staging place, verifies and measures what was written,
 * checks the gates, and only then lets the output appear. A failed gate is a result, not an error:
 * see `gates`, and `output`, which is then absent unless `keepFailed`.
 * @throws {ResectError} with the exit code of what went wrong; 3 when the written model is not what
 *   it should be.
 */
export async function operate<S extends z.ZodObject>(
  request: OperationRequest<S>,
): Promise<OperationResult> {
  const start = performance.now();
  const { method, seed = 0, threads = availableParallelism(), progress = () => {} } = request;
  const parameters = parseParameters(method, request.parameters);
  const gates: Gates = { maxDrop: [], min: [], ...request.gates };
  validateGates(gates);
  const selects = selector(request.include, request.exclude);

  const model = await readModel(request.model);
  const merged = request.merging && (await readMerged(request.merging));
  const shared = {
    method: method.name,
    parameters,
    input: { path: request.model, bytes: model.sizeBytes },
  };
  if (request.dryRun) {
    const planned = await inFile(request.model, async () =>
      method.plan(model, parameters, { selects, ...merged }),
    );
    return { ...shared, ...planned, gates: [], seconds: since(start) };
  }
  const { output } = request;
  if (!output) throw usageError('Say where to write the result.', { expected: '-o FILE' });

  const { reads = [], writes = [] } = method.files?.(parameters) ?? {};
  const files = { output, writes, force: request.force };
  const mergedFiles = merged ? filesOf(merged) : [];
  checkFiles(model, { ...files, reads: [...reads, ...mergedFiles] });
  requireInputs(method.name, method.needs(parameters), request);
  const inputs = modelInputs(model.proto);
  const { tokenizer, where, indices, task } = request;
  const open = (path: string) => openDataset(path, inputs, { tokenizer, where, indices, task });
  const sets =
    request.forget === undefined
      ? undefined
      : await openForgettingData({ ...request, forget: request.forget }, inputs);
  const calibData = request.calib === undefined ? undefined : await open(request.calib);
  const named = await openNamedSets(request.merging?.sets ?? [], inputs, {
    tokenizer,
    where,
    indices,
    task,
  });
  if (request.merging?.mce !== undefined) checkCorruptions(named);
  const evalData =
    sets?.test?.dataset ??
    named[0]?.dataset ??
    (request.eval === undefined ? undefined : await open(request.eval));
  const calibration = calibData && {
    dataset: calibData,
    indices: sampleIndices(calibData.length, request.samples ?? defaultSamples, seed),
  };

  const used = [
    calibData,
    evalData,
    ...named.map((set) => set.dataset),
    sets?.forget.dataset,
    sets?.retain?.dataset,
  ];
  const read = [...reads, ...mergedFiles, ...used.flatMap((data) => data?.files ?? [])];
  if (request.reference !== undefined) {
    await checkReferenceFile(model, request.reference);
    read.push(request.reference);
  }
  checkFiles(model, { ...files, reads: read });
  if (sets) checkForgettingGates(gates, sets);

  const inputSha256 = await model.hash();
  const size = await measureSize(model);
  const surgery = await inFile(request.model, () =>
    method.apply(model, parameters, {
      calibration,
      ...(evalData && { test: everything(evalData, task) }),
      ...sets,
      ...merged,
      maxDrop: absoluteDrops(gates),
      maxBytes: sizeLimit(gates, model.sizeBytes),
      selects,
      force: request.force,
      threads,
      seed,
      progress,
    }),
  );
  const applied = { ...parameters, ...surgery.settled };
  const calibrationSha256 = calibData && (await hashFiles(calibData.files));
  const origin = provenance({
    command: `${method.name} ${JSON.stringify({ ...applied, ...choices(request) })}`,
    inputSha256,
    calibrationSha256,
    forgetSha256: sets && (await hashFiles(sets.forget.dataset.files)),
    retainSha256: sets?.retain && (await hashFiles(sets.retain.dataset.files)),
    mergedSha256: merged && (await hashMerged(merged)),
    seed,
  });
  if (request.withProvenance ?? true) stamp(model, origin);

  let comparison: Comparison | undefined;
  let checked: GateResult[] = [];
  const written = await writeModel(model, output, {
    force: request.force,
    // What came with weights of its own because of its size goes out so.
    externalData: request.externalData ?? (model.sizeBytes > MAX_MODEL_BYTES || undefined),
    check: async (staged) => {
      progress('verify', 0, 1);
      const made = await verifyWritten(model, staged);
      comparison = await compareModels({ model, size }, made, {
        ...(sets ? sample(sets.forget) : comparisonData(evalData, calibration, task)),
        threads,
        seed,
        progress,
      }).catch((error) => {
        // The data fitted the original: what fails now is the model that was written.
        throw error instanceof ResectError && error.exitCode === ExitCode.unsupportedModel
          ? refusedByRuntime(output, error)
          : error;
      });
      if (sets) {
        comparison.fidelity = undefined;
        comparison.forgetting = await measureForgettingOf(model, made, sets, {
          reference: request.reference,
          relearn: request.relearn,
          threads,
          seed,
          progress,
        });
        surgery.notes.push(...collapse(comparison.forgetting));
      }
      if (request.merging && named.length > 0) {
        const measured = await measureMerging(made, model, named, {
          ...request.merging,
          model: request.model,
          parameters,
          selects,
          threads,
          progress,
        });
        comparison.merging = measured.merging;
        surgery.notes.push(...measured.notes);
      }
      checked = checkMergingGates(gates, comparison);
      return request.keepFailed || checked.every(({ passed }) => passed);
    },
  });
  return {
    ...shared,
    parameters: applied,
    input: { ...shared.input, sha256: inputSha256 },
    ...(written && { output: { path: output, ...written } }),
    ...(calibration &&
      calibrationSha256 && {
        calibration: {
          path: calibration.dataset.path,
          samples: calibration.indices.length,
          sha256: calibrationSha256,
        },
      }),
    layers: surgery.layers,
    notes: surgery.notes,
    ...(surgery.macs && { macs: surgery.macs }),
    ...(surgery.training && { training: surgery.training }),
    comparison,
    gates: checked,
    provenance: origin,
    seconds: since(start),
  };
}

const everything = (dataset: Dataset, task: Task | undefined): TaskData => ({
  dataset,
  indices: Array.from({ length: dataset.length }, (_, i) => i),
  task: task ?? dataset.task,
});

/** For a look at sizes and latency: what was forgotten is measured apart. */
const sample = ({ dataset, indices }: Calibration) => ({
  data: { dataset, indices: indices.slice(0, fidelitySamples) },
  task: 'none' as const,
});

function requireInputs<S extends z.ZodObject>(
  name: string,
  needs: Needs,
  { calib, forget, retain, merging }: OperationRequest<S>,
): void {
  const others = merging?.others.length ?? 0;
  if (
    needs.others &&
    (needs.others === 'one' ? others !== 1 : others + (merging?.base ? 1 : 0) < 1)
  )
    throw usageError(
      `${name} merges ${needs.others === 'one' ? 'two models' : 'two models or more'}.`,
      {
        got: `${others + 1}`,
      },
    );
  if (needs.base === 'required' && !merging?.base)
    throw usageError(`${name} goes by what the models have become of their base.`, {
      expected: '--base FILE',
    });
  if (needs.calibration === 'required' && !calib) {
    throw usageError(`${name} needs calibration data with these parameters.`, {
      expected: '--calib DATA',
      hint: 'Give a few dozen unlabelled examples, or choose parameters that need none (see --help).',
    });
  }
  if (needs.forget === 'required' && !forget) {
    throw usageError(`${name} needs the examples that are to be forgotten.`, {
      expected: '--forget DATA',
      hint: 'With --where label=3 or --indices FILE it may be a part of the data.',
    });
  }
  if (needs.retain === 'required' && !retain) {
    throw usageError(`${name} needs training examples that are to be kept.`, {
      expected: '--retain DATA',
      hint: 'The file that --forget names may be given again: what is not to be forgotten is kept.',
    });
  }
}

/** Labelled data where there is some, else the calibration data, compared with the original only. */
function comparisonData(
  evalData: Dataset | undefined,
  calibration: Calibration | undefined,
  task: Task | undefined,
) {
  if (evalData) {
    const { task: evaluated, ...data } = everything(evalData, task);
    return { data, task: evaluated };
  }
  if (!calibration) return { task: 'none' as const };
  const { dataset, indices } = calibration;
  return { data: { dataset, indices: indices.slice(0, fidelitySamples) }, task: 'none' as const };
}

function parseParameters<S extends z.ZodObject>(method: Method<S>, given: z.input<S>): z.infer<S> {
  const parsed = method.parameters.safeParse(given);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  throw usageError(`A parameter of ${method.name} is not valid.`, {
    where: issue.path.map((key) => flagName(String(key))).join(' '),
    expected: issue.message,
    got: String(
      issue.path.reduce<unknown>((v, key) => (v as Record<PropertyKey, unknown>)?.[key], given),
    ),
  });
}

/** `varPower` -> `--var-power`. */
export const flagName = (parameter: string): string =>
  `--${parameter.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;

function selector(include: string[] = [], exclude: string[] = []): (layer: string) => boolean {
  const included = include.length > 0 ? layerMatcher(include) : () => true;
  const excluded = layerMatcher(exclude);
  return (layer) => included(layer) && !excluded(layer);
}

/** What else decides the result: which data and which layers. */
function choices<S extends z.ZodObject>({
  calib,
  samples,
  where,
  indices,
  include,
  exclude,
}: OperationRequest<S>) {
  return { samples: calib && (samples ?? defaultSamples), where, indices, include, exclude };
}

const since = (start: number): number => (performance.now() - start) / 1000;
