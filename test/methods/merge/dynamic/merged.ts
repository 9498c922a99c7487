import { randomFeeds } from '../../../../src/data/index.js';
import { modelInputs } from '../../../../src/graph/interface.js';
import type { CoefficientRule } from '../../../../src/methods/merge/coefficient-rule.js';
import { measureDistances } from '../../../../src/methods/merge/distance.js';
import { buildDynamic } from '../../../../src/methods/merge/dynamic/build.js';
import { Pair } from '../../../../src/methods/merge/dynamic/pair.js';
import { findScores, type ScoresWish } from '../../../../src/methods/merge/dynamic/scores.js';
import { weightedSum } from '../../../../src/methods/merge/maths/linear.js';
import { prepare } from '../../../../src/methods/merge/prepare.js';
import { mergeInto } from '../../../../src/methods/merge/static/merge-into.js';
import { type Model, parseModel, serializeModel } from '../../../../src/onnx/index.js';
import { type Feeds, withSession } from '../../../../src/runtime/session.js';

export const centred: CoefficientRule = {
  kind: 'disagreement',
  temperature: { generalist: 1, expert: 1 },
  form: 'centred',
  gamma: 20,
  lmin: 0,
  lmax: 1,
  tau: 1,
  kappa: 4,
  lambdaOn: 'generalist',
};

/** Models as bytes: what is merged is parsed anew each time, as merging changes it. */
export interface PairOfModels {
  expert: Uint8Array;
  generalist: Uint8Array;
}

const labelled = ({ expert, generalist }: PairOfModels) => [
  { model: parseModel(expert), label: 'expert' },
  { model: parseModel(generalist), label: 'generalist' },
];

/** The models, prepared and paired, and how to begin a graph of both. */
async function pairOf(models: PairOfModels) {
  const both = labelled(models);
  const { tensors } = await prepare(both, () => true, { bn: 'merge', dynamic: true });
  const { differing } = await measureDistances(both, tensors);
  const [{ model: expert }, { model: generalist }] = both;
  const stored = differing.map(({ name, role, tensors: [e, g] }) => ({
    name,
    role,
    expert: e,
    generalist: g,
  }));
  return { expert, newPair: () => new Pair(expert, generalist, stored) };
}

/** The graph that merges itself, as it would be written. */
export async function dynamicModel(
  models: PairOfModels,
  mode: 'batch' | 'sample' | 'cluster',
  {
    rule = centred,
    shares = [0.1, 0.5, 0.9],
    outputs = true,
    ...wish
  }: ScoresWish & { rule?: CoefficientRule; shares?: number[]; outputs?: boolean } = {},
): Promise<{ bytes: Uint8Array; notes: string[]; model: Model }> {
  const { expert, newPair } = await pairOf(models);
  const scores = findScores(expert.proto, wish);
  const notes = await buildDynamic(newPair, mode, { scores, rule, outputs, shares }, { seed: 1 });
  return { bytes: await serializeModel(expert), notes, model: expert };
}

/** The model between both, with this share of the generalist's weights. */
export async function staticModel(models: PairOfModels, share: number): Promise<Uint8Array> {
  const both = labelled(models);
  const { tensors } = await prepare(both, () => true, { bn: 'merge' });
  mergeInto(both, tensors, (values, { role }) => {
    const merged = weightedSum(values, [1 - share, share]);
    return role === 'variance' ? merged.map((v) => Math.max(v, 1e-12)) : merged;
  });
  return serializeModel(both[0].model);
}

export const run = (model: Uint8Array, feeds: Feeds): Promise<Feeds> =>
  withSession(model, { threads: 1 }, (session) => session.run(feeds));

/** Random inputs of the model. */
export const inputsOf = (model: Uint8Array, batch: number, seed = 5): Feeds =>
  randomFeeds(modelInputs(parseModel(model).proto), batch, seed);

/** Row `n` of every input, alone. */
export const sampleOf = (feeds: Feeds, n: number): Feeds =>
  Object.fromEntries(
    Object.entries(feeds).map(([name, { dtype, dims, data }]) => {
      if (dims.length === 1) return [name, { dtype, dims, data }]; // The same for all samples.
      const size = data.length / dims[0];
      const row = data.slice(n * size, (n + 1) * size);
      return [name, { dtype, dims: [1, ...dims.slice(1)], data: row }];
    }),
  );

/** The largest difference relative to the largest value, of one output. */
export function difference(a: Feeds[string], b: Feeds[string]): number {
  expect(a.dims).toEqual(b.dims);
  let largest = 1e-30;
  let worst = 0;
  for (let i = 0; i < a.data.length; i++) {
    largest = Math.max(largest, Math.abs(Number(b.data[i])));
    worst = Math.max(worst, Math.abs(Number(a.data[i]) - Number(b.data[i])));
  }
  return worst / largest;
}

/**
 * Checks what a graph that merges itself answers against merging first and running then: the share of
 * each sample is read from its own `lambda`.
 */
export async function expectMergedAnswers(
  models: PairOfModels,
  mode: 'batch' | 'sample' | 'cluster',
  options: Parameters<typeof dynamicModel>[2] & { batch?: number; tolerance?: number } = {},
): Promise<{ notes: string[]; lambda: number[]; bytes: Uint8Array }> {
  const { batch = 4, tolerance = 1e-5, shares = [0.1, 0.5, 0.9], ...wish } = options;
  const { bytes, notes } = await dynamicModel(models, mode, { ...wish, shares });
  const feeds = inputsOf(models.expert, batch);
  const answers = await run(bytes, feeds);
  const lambda = Array.from(answers.lambda.data, Number);
  const names = Object.keys(answers).filter((name) => name !== 'lambda' && name !== 'js');
  for (let n = 0; n < batch; n++) {
    const own = lambda[lambda.length === 1 ? 0 : n];
    const share =
      mode === 'cluster'
        ? shares.reduce((a, b) => (Math.abs(b - own) < Math.abs(a - own) ? b : a))
        : own;
    const want = await run(await staticModel(models, share), sampleOf(feeds, n));
    for (const name of names)
      expect(difference(sampleOf({ [name]: answers[name] }, n)[name], want[name])).toBeLessThan(
        tolerance,
      );
  }
  return { notes, lambda, bytes };
}
