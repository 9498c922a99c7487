import { batches, type TensorData } from '../../data/index.js';
import { batchSize } from '../../evaluate/evaluate.js';
import { toFloats } from '../../evaluate/metrics.js';
import { modelInputs } from '../../graph/interface.js';
import { openPart } from '../../runtime/part.js';
import { withSession } from '../../runtime/session.js';
import type { Calibration, Context } from '../method.js';
import type { CoefficientRule } from './coefficient-rule.js';
import { observingModel } from './dynamic/branches.js';
import type { Pair } from './dynamic/pair.js';
import type { Scores } from './dynamic/scores.js';
import { entropies, jensenShannon } from './maths/disagreement.js';

/** What two models make of the same samples, one number each. */
export interface Observation {
  /** Jensen-Shannon divergence in nats; the mean over positions. NaN where scores are not finite. */
  js: Float64Array;
  /** Entropies in nats. */
  entropy: { generalist: Float64Array; expert: Float64Array };
}

/** Runs both models on unlabelled samples. */
export async function observe(
  pair: Pair,
  scores: Scores,
  temperature: CoefficientRule['temperature'],
  { dataset, indices }: Calibration,
  { threads, progress }: Pick<Context, 'threads' | 'progress'>,
): Promise<Observation> {
  const { proto, expert, generalist } = observingModel(pair, scores);
  const { bytes, folder } = await openPart(pair.model, proto);
  const js: number[] = [];
  const entropy: { generalist: number[]; expert: number[] } = { generalist: [], expert: [] };
  const inputs = modelInputs(proto);
  const size = batchSize(await dataset.example(indices[0]));
  await withSession(bytes, { folder, threads }, async (session) => {
    for await (const batch of batches(dataset, indices, size, inputs)) {
      const out = await session.run(batch.feeds);
      const p = distributions(out[generalist], scores, temperature.generalist);
      const q = distributions(out[expert], scores, temperature.expert);
      const { rows, classes } = p;
      const each = [
        jensenShannon(p.values, q.values, classes, scores.link),
        entropies(p.values, classes, scores.link),
        entropies(q.values, classes, scores.link),
      ];
      const samples = out[expert].dims[0];
      const mean = (values: Float64Array, n: number) => {
        const own = values.subarray((n * rows) / samples, ((n + 1) * rows) / samples);
        return own.reduce((a, b) => a + b, 0) / own.length;
      };
      for (let n = 0; n < batch.size; n++)
        for (const [i, list] of [js, entropy.generalist, entropy.expert].entries())
          list.push(mean(each[i], n));
      progress('observe', js.length, indices.length);
    }
  });
  return {
    js: Float64Array.from(js),
    entropy: {
      generalist: Float64Array.from(entropy.generalist),
      expert: Float64Array.from(entropy.expert),
    },
  };
}

/** Scores as logits [rows, classes], a row for each position of each sample. */
function distributions(
  raw: TensorData,
  { rank, axis, link, linked }: Scores,
  temperature: number,
): { values: Float64Array; rows: number; classes: number } {
  const classes = raw.dims[axis];
  const rows = raw.data.length / classes;
  const positions = rank === 4 ? raw.dims[2] * raw.dims[3] : 1;
  const given = toFloats(raw);
  const values = new Float64Array(given.length);
  for (let r = 0; r < rows; r++) {
    const first = Math.floor(r / positions) * positions * classes + (r % positions);
    for (let c = 0; c < classes; c++) {
      const x = given[first + c * positions];
      values[r * classes + c] = (linked ? logitOf(x, link) : x) / temperature;
    }
  }
  return { values, rows, classes };
}

const logitOf = (p: number, link: Scores['link']): number =>
  link === 'softmax'
    ? Math.log(Math.max(p, tiny))
    : Math.log(Math.max(p, tiny)) - Math.log(Math.max(1 - p, tiny));

const tiny = 1.2e-38;
