import type { z } from 'zod';
import { modelError } from '../../../errors.js';
import { MAX_MODEL_BYTES, type Model } from '../../../onnx/index.js';
import type { Context, Surgery } from '../../method.js';
import { reestimateBatchNorm } from '../batch-norm.js';
import type { CoefficientRule } from '../coefficient-rule.js';
import { type MergedTensor, measureDistances } from '../distance.js';
import { kMeans } from '../maths/clusters.js';
import { weightedSum } from '../maths/linear.js';
import type { LabelledModel } from '../models.js';
import { type Observation, observe } from '../observe.js';
import { type bnParameter, prepare } from '../prepare.js';
import { keepPositive } from '../static/linear.js';
import { type MergeTensor, mergeInto } from '../static/merge-into.js';
import { buildDynamic } from './build.js';
import { Pair } from './pair.js';
import { findScores } from './scores.js';

/** What both dynamic methods share. */
export interface DynamicParameters {
  mode: 'batch' | 'sample' | 'static' | 'cluster';
  scores?: string;
  multiLabel: boolean;
  clusters: number;
  bn: z.infer<typeof bnParameter>;
  observe: boolean;
}

/** How a method gets its coefficient. */
export interface Coefficients {
  temperature: CoefficientRule['temperature'];
  /** The rule, given what both models make of the calibration samples. */
  rule(observation: Observation | undefined, notes: string[]): CoefficientRule;
  /** The generalist's share in the weights of each calibration sample. */
  shares(observation: Observation, rule: CoefficientRule): Float64Array;
  /** Shares that stand for all of them, rising; by default k-means. */
  centres?(shares: Float64Array, clusters: number): number[];
  /** Which model the published λ weights. */
  lambdaOn: 'generalist' | 'expert';
  /** What metadata begin with. */
  prefix: string;
}

/** Fewer samples say little of how much the models disagree. */
const fewSamples = 50;

/**
 * Makes of the expert a model that merges itself with the generalist when it runs, or a merge made for
 * the calibration data.
 * @throws {ResectError} exit 5 where the models do not pair
 */
export async function mergeDynamic(
  expert: Model,
  generalist: Model,
  { mode, scores: output, multiLabel, clusters, bn, observe: outputs }: DynamicParameters,
  coefficients: Coefficients,
  context: Context,
): Promise<Surgery<MergedTensor>> {
  const { calibration, threads, progress } = context;
  const labelled: LabelledModel[] = [
    { model: expert, label: `expert ${expert.path ?? ''}`.trim() },
    { model: generalist, label: `generalist ${generalist.path ?? ''}`.trim() },
  ];
  const prepared = await prepare(labelled, context.selects, { bn, dynamic: mode !== 'static' });
  const notes = [...prepared.notes];
  const scores = findScores(expert.proto, { output, multiLabel });
  const { layers, differing, cosine } = await measureDistances(labelled, prepared.tensors);
  if (differing.length === 0)
    notes.push('The models are the same, so are all answers: there is nothing to merge.');
  else notes.push(`Cosine between the weights of both models: ${cosine.toFixed(4)}.`);
  const newPair = () =>
    new Pair(
      expert,
      generalist,
      differing.map(({ name, role, tensors: [e, g] }) => ({
        name,
        role,
        expert: e,
        generalist: g,
      })),
    );
  if ((calibration || mode === 'sample') && generalist.sizeBytes > MAX_MODEL_BYTES)
    throw modelError('The models are too large to be run beside each other.', {
      where: generalist.path,
      expected: `at most ${MAX_MODEL_BYTES} bytes each`,
      got: `${generalist.sizeBytes} bytes`,
      hint: 'Choose --mode batch without --calib; give --tau for the calibrated form.',
    });
  if (calibration && calibration.indices.length < fewSamples)
    notes.push(
      `${calibration.indices.length} calibration samples say little of how much the models disagree: ${fewSamples} or more are better (--calib, --samples).`,
    );
  const observation =
    calibration &&
    (await observe(newPair(), scores, coefficients.temperature, calibration, {
      threads,
      progress,
    }));
  const rule = coefficients.rule(observation, notes);
  const surgery = { layers, changedTensors: differing.map(({ name }) => name), notes };

  if (mode === 'static') {
    const { share, js } = meanShare(observation, coefficients, rule);
    const merge: MergeTensor = (values, { role }) => {
      const merged = weightedSum(values, [1 - share, share]);
      if (role === 'variance') keepPositive(merged);
      return merged;
    };
    mergeInto(labelled, differing, merge, { elementwise: true });
    const lambda = coefficients.lambdaOn === 'expert' ? 1 - share : share;
    notes.push(`One merge with ${share.toFixed(4)} of the generalist, the mean over --calib.`);
    expert.proto.metadataProps = [
      ...(expert.proto.metadataProps ?? []),
      { key: `${coefficients.prefix}.lambda`, value: String(lambda) },
      { key: `${coefficients.prefix}.js_mean`, value: String(js) },
    ];
    if (bn === 'reestimate') notes.push(...(await reestimateBatchNorm(expert, context)));
    return surgery;
  }
  const shares = mode === 'cluster' ? clusterShares(observation, coefficients, rule, clusters) : [];
  if (mode === 'cluster')
    notes.push(`Merges with ${shares.map((s) => s.toFixed(4)).join(', ')} of the generalist.`);
  notes.push(...(await buildDynamic(newPair, mode, { scores, rule, outputs, shares }, context)));
  return surgery;
}

function meanShare(
  observation: Observation | undefined,
  { shares }: Coefficients,
  rule: CoefficientRule,
): { share: number; js: number } {
  const known = needObservation(observation);
  return { share: mean(shares(known, rule)), js: mean(known.js.filter(Number.isFinite)) };
}

function clusterShares(
  observation: Observation | undefined,
  { shares, centres = kMeans }: Coefficients,
  rule: CoefficientRule,
  clusters: number,
): number[] {
  return centres(shares(needObservation(observation), rule), clusters);
}

function needObservation(observation: Observation | undefined): Observation {
  if (observation) return observation;
  throw new Error('modes that need calibration data have got some');
}

const mean = (values: Float64Array): number => values.reduce((a, b) => a + b, 0) / values.length;
