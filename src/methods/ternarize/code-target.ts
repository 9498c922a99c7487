import { readMatrix, type WeightMatrix } from '../../graph/weight-matrix.js';
import type { Model } from '../../onnx/index.js';
import type { LinearAlgebra } from '../../runtime/linear-algebra.js';
import { type Collected, concat, groupRows } from '../calibration/collect.js';
import { mergeAccumulators, type StatisticsAccumulator } from '../calibration/statistics.js';
import type { Target } from '../calibration/targets.js';
import type { CodePool } from './code-pool.js';
import { type KeptCodes, keepCodes } from './kept-codes.js';
import type { TernarizeLayer } from './layers.js';
import { deadBias, fullBias, lambdaBias } from './maths/bias.js';
import { allocateCodes, checkRows, type LayerCodes, type LayerWeights } from './maths/codes.js';
import { detectTernary } from './maths/detect.js';
import { relativeWeightError, zeroFraction } from './maths/error.js';
import { HeldOut } from './maths/held-out.js';
import type { Hessian, InputMoments } from './maths/hessian.js';
import type { Coding, Levels, Settings } from './parameters.js';
import type { PlannedLayer } from './plan.js';

/** What a target becomes, or why it stays. */
export interface Outcome {
  report: Partial<TernarizeLayer>;
  /** Absent where it stays. */
  coded?: {
    codes: KeptCodes;
    /** [outputs] added to what a layer puts out, by the layer's name; absent where nothing is. */
    biases: ReadonlyMap<string, Float32Array>;
  };
}

/** What calibration told of a target's layers; empty without data. */
export interface Seen {
  /** Statistics that codes are chosen by. */
  fit: ReadonlyMap<PlannedLayer, Collected | undefined>;
  /** Inputs that take no part in it. */
  check: ReadonlyMap<PlannedLayer, Collected | undefined>;
}

export interface Tools {
  pool: CodePool;
  algebra: LinearAlgebra;
  /** Remembers the last: q, k and v read one activation. */
  momentsOf: (part: StatisticsAccumulator) => InputMoments;
  hessianOf: (
    layer: string,
    moments: InputMoments,
    maxCols: number,
  ) => { hessian: Hessian; factor?: Float64Array };
}

/** Of an image's patches, more inputs than these would take more memory than they are worth. */
const maxPatchInputs = 1152;
const maxInputs = 4096;

export const largestHessian = (weight: WeightMatrix): number =>
  weight.inAxes.length > 1 ? maxPatchInputs : maxInputs;

const codings: readonly Coding[] = ['fit', 'gptq', 'gptq-cd'];

/** Chooses codes and biases of one stored tensor. */
export async function codeTarget(
  model: Model,
  target: Target<PlannedLayer>,
  levels: Levels,
  settings: Settings,
  seen: Seen,
  tools: Tools,
): Promise<Outcome> {
  const start = performance.now();
  const { weight, planned } = target;
  const [{ report: first }] = planned;
  const w = await readMatrix(model, weight);
  const layer: LayerWeights = { name: first.name, w, rows: weight.rows, cols: weight.cols };
  checkRows(layer, { from: 0, to: weight.rows });
  const seconds = () => (performance.now() - start) / 1000;

  const ternary = detectTernary(layer);
  if (ternary) {
    const stated = { levels: 3 as const, coding: 'as they are', zeros: zeroFraction(ternary) };
    return {
      report: { status: 'changed', ...stated, weightError: 0, outputError: 0, seconds: seconds() },
      coded: { codes: keepCodes(ternary, 3), biases: new Map() },
    };
  }
  const reached = planned.filter((p) => seen.fit.get(p));
  if (seen.fit.size > 0 && reached.length === 0)
    return { report: { status: 'skipped', reason: 'no calibration example reached it' } };

  const { groups } = weight;
  const parts: CodedGroup[] = [];
  for (let g = 0; g < groups; g++) {
    const rows = weight.rows / groups;
    const own = w.subarray(g * rows * layer.cols, (g + 1) * rows * layer.cols);
    parts.push(
      await codeGroup({ ...layer, w: own, rows }, levels, settings, tools, {
        inputs: reached.flatMap((p) => {
          const collected = seen.fit.get(p);
          return collected ? [{ name: p.report.name, moments: collected.accumulators[g] }] : [];
        }),
        heldOut: heldOutRows(planned, seen, layer.cols, groups, g),
        maxCols: largestHessian(weight),
        alpha: planned[0].layer.alpha,
      }),
    );
  }
  const codes = joinCodes(layer, settings, parts);
  const outputError = pooledError(parts);
  const codingsUsed = [...new Set(parts.map((p) => p.coding))].join(', ');
  const report: Partial<TernarizeLayer> = {
    levels,
    coding: codingsUsed,
    zeros: zeroFraction(codes),
    weightError: relativeWeightError(layer, codes),
    ...(outputError !== undefined && { outputError }),
    notes: [...new Set(parts.flatMap((p) => p.notes))],
    seconds: seconds(),
  };
  if (outputError !== undefined && !(outputError <= settings.maxLayerError)) {
    const reason = `loses ${(100 * outputError).toFixed(0)} % of its output (--max-layer-error)`;
    return { report: { ...report, status: 'unchanged', reason, levels: undefined } };
  }
  const biases = new Map<string, Float32Array>();
  for (const { report } of planned) {
    const own = parts.map((p) => p.biases.get(report.name) ?? p.biases.get(''));
    if (own.some((b) => b === undefined)) continue;
    biases.set(report.name, concat(own.map((b) => Float32Array.from(b ?? []))));
  }
  const norms = [...biases.values()].map((b) =>
    Math.sqrt(b.reduce((s, x) => s + x * x, 0) / b.length),
  );
  return {
    report: {
      status: 'changed',
      ...report,
      ...(norms.length > 0 && { biasNorm: Math.max(...norms) }),
    },
    coded: { codes: keepCodes(codes, levels), biases },
  };
}

/** One convolution group; a plain layer is one. */
interface CodedGroup {
  codes: LayerCodes;
  coding: Coding;
  /** [rows] by the layer's name, or by '' for all. */
  biases: Map<string, Float64Array>;
  error?: number;
  power?: number;
  notes: string[];
}

interface GroupData {
  inputs: { name: string; moments: StatisticsAccumulator }[];
  /** [n, cols] */
  heldOut?: Float32Array;
  maxCols: number;
  /** Factor of the product, which the bias is added to. */
  alpha: number;
}

async function codeGroup(
  layer: LayerWeights,
  levels: Levels,
  settings: Settings,
  tools: Tools,
  { inputs, heldOut, maxCols, alpha }: GroupData,
): Promise<CodedGroup> {
  const notes: string[] = [];
  const quantizer = settings.quantizerOf(levels);
  const moments = merged(inputs, tools);
  const known = moments && tools.hessianOf(layer.name, moments, maxCols);
  const reason = known?.hessian.reason;
  if (settings.coding !== 'fit' && !known?.factor)
    notes.push(`${reasons[reason ?? 'indefinite']}: each group by itself, weighted by input power`);
  const tried = known?.factor
    ? codings.slice(0, codings.indexOf(settings.coding) + 1)
    : codings.slice(0, 1);
  const check =
    heldOut &&
    (await HeldOut.of(layer, heldOut, (a, b, k) => tools.algebra.timesTransposed(a, b, k)));

  let best: { codes: LayerCodes; coding: Coding; error?: number; bias?: Float64Array } | undefined;
  // Without held-out inputs nothing can tell which is best: the last is expected to be.
  const { hessian, factor } = known ?? {};
  let last: LayerCodes | undefined;
  for (const method of check ? tried : tried.slice(-1)) {
    const task = { layer, quantizer, method, hessian, factor };
    const start = method === 'gptq-cd' ? last : undefined;
    const codes = await tools.pool.code(task, settings.granularity, start);
    last = codes;
    const bias = biasOf(layer, codes, settings.bias, moments?.mean);
    const error = await check?.error(codes, bias);
    if (!best || (error ?? 0) < (best.error ?? Number.POSITIVE_INFINITY) || error === undefined)
      best = { codes, coding: method, error, bias };
  }
  if (!best) throw new Error('no way to code a layer');
  const { codes, coding, error } = best;
  const biases = new Map<string, Float64Array>();
  const scaled = (bias?: Float64Array) => bias?.map((b) => b * alpha);
  if (settings.bias === 'lambda') biases.set('', scaled(best.bias) ?? new Float64Array(0));
  else if (settings.bias !== 'none')
    for (const { name, moments: own } of inputs) {
      // Layers that share a weight see different inputs.
      const bias = biasOf(
        layer,
        codes,
        settings.bias,
        inputs.length > 1 ? tools.momentsOf(own).mean : moments?.mean,
      );
      biases.set(name, scaled(bias) ?? new Float64Array(0));
    }
  return { codes, coding, biases, error, power: check?.power, notes };
}

/** Why there is no whole covariance to go by. */
const reasons = {
  'not gathered': 'too many inputs for covariances',
  'few tokens': 'too few calibration rows for covariances',
  'many inputs': 'too many inputs for covariances',
  indefinite: 'covariances are not positive definite',
};

/** As if the samples of all layers that share the tensor were one after the other. */
function merged(inputs: GroupData['inputs'], tools: Tools): InputMoments | undefined {
  if (inputs.length === 0) return undefined;
  return tools.momentsOf(mergeAccumulators([...new Set(inputs.map(({ moments }) => moments))]));
}

/** [rows]; undefined where there is none. */
function biasOf(
  layer: LayerWeights,
  codes: LayerCodes,
  bias: Settings['bias'],
  mean: Float64Array | undefined,
): Float64Array | undefined {
  if (bias === 'lambda') return lambdaBias(layer, codes);
  if (bias === 'none' || !mean) return undefined;
  return bias === 'full' ? fullBias(layer, codes, mean) : deadBias(layer, codes, mean);
}

/** [n, cols] held-out inputs of one convolution group, of all layers of the target. */
function heldOutRows(
  planned: readonly PlannedLayer[],
  { check }: Seen,
  cols: number,
  groups: number,
  group: number,
): Float32Array | undefined {
  const known = new Set(planned.flatMap((p) => check.get(p)?.rows ?? []));
  const all = concat([...known]);
  if (all.length === 0) return undefined;
  return groupRows(all, cols, groups, group);
}

function joinCodes(
  layer: LayerWeights,
  { granularity }: Settings,
  parts: readonly CodedGroup[],
): LayerCodes {
  if (parts.length === 1) return parts[0].codes;
  const [{ codes: first }] = parts;
  const all = allocateCodes(layer, granularity === 'tensor' ? 'channel' : granularity, {
    offsets: first.offsets !== undefined,
  });
  let row = 0;
  for (const { codes } of parts) {
    all.codes.set(codes.codes, row * all.cols);
    all.scales.set(codes.scales, row * all.groups);
    if (codes.offsets) all.offsets?.set(codes.offsets, row * all.groups);
    row += codes.rows;
  }
  return all;
}

function pooledError(parts: readonly CodedGroup[]): number | undefined {
  let [error, power] = [0, 0];
  for (const part of parts) {
    if (part.error === undefined || part.power === undefined) return undefined;
    error += part.error * part.power;
    power += part.power;
  }
  return power > 0 ? error / power : 0;
}
