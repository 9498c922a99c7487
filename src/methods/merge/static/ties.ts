import { z } from 'zod';
import { readTensorBytes } from '../../../onnx/index.js';
import { weightedSum } from '../maths/linear.js';
import { addElected, taskVector } from '../maths/task-vectors.js';
import { applyTrim, MagnitudeRank, type Trim, trimOf } from '../maths/trim.js';
import { bnParameter } from '../prepare.js';
import { toFloats } from '../values.js';
import type { MergeTensor } from './merge-into.js';
import { type StaticContext, staticMethod } from './static-method.js';

export const ties = staticMethod({
  name: 'ties',
  summary: 'Merge what models have learnt beyond a base, without what is small or disputed (TIES).',
  references: [
    { title: 'TIES-Merging: Resolving Interference When Merging Models', arxiv: '2306.01708' },
  ],
  parameters: z.object({
    density: z
      .number()
      .gt(0)
      .max(1)
      .default(0.2)
      .describe('share of the changes that stays: those of largest magnitude'),
    trim: z
      .enum(['tensor', 'model'])
      .default('tensor')
      .describe('the largest of each tensor, or of all tensors of a model'),
    scale: z.number().default(1).describe('of the merged change'),
    bn: bnParameter,
  }),
  examples: [
    '<%= config.bin %> merge ties a.onnx b.onnx --base base.onnx -o out.onnx --density 0.3',
  ],
  models: 'some',
  fromBase: true,
  elementwise: false,

  async merger({ density, trim, scale }, context) {
    const trims = trim === 'model' ? await modelTrims(density, context) : undefined;
    return (values, { role, name }) => {
      if (role !== 'weight') return meanOfTuned(values);
      const base = values[values.length - 1];
      const vectors = values.slice(0, -1).map((tuned, m) => {
        const vector = taskVector(tuned, base);
        const own = trims?.[m].get(name);
        applyTrim(vector, own ?? trimOf(vector, Math.round(density * vector.length)));
        return vector;
      });
      return addElected(base, vectors, scale);
    };
  },
});

/** Statistics are interpolated: the mean of the models, without the base. */
export function meanOfTuned(values: Parameters<MergeTensor>[0]): Float32Array {
  const tuned = values.slice(0, -1);
  return weightedSum(
    tuned,
    tuned.map(() => 1 / tuned.length),
  );
}

/** Of each model, how its tensors are trimmed so that together the largest of all changes stay. */
async function modelTrims(
  density: number,
  { models, tensors }: StaticContext,
): Promise<Map<string, Trim>[]> {
  const base = models.length - 1;
  const weights = tensors.filter(({ role }) => role === 'weight');
  const trims: Map<string, Trim>[] = [];
  for (let m = 0; m < base; m++) {
    const vectors = async function* () {
      for (const { name, tensors: stored, dtype, shape } of weights) {
        const elements = shape.reduce((a, b) => a * b, 1);
        const [tuned, start] = await Promise.all(
          [m, base].map(async (i) =>
            toFloats(await readTensorBytes(models[i].model, stored[i]), dtype, elements),
          ),
        );
        yield { name, vector: taskVector(tuned, start) };
      }
    };
    const rank = new MagnitudeRank();
    let entries = 0;
    for await (const { vector } of vectors()) {
      rank.count(vector);
      entries += vector.length;
    }
    rank.choose(Math.round(density * entries));
    for await (const { vector } of vectors()) rank.refine(vector);
    const { threshold, ties: total } = rank.result();
    const own = new Map<string, Trim>();
    let left = total;
    for await (const { name, vector } of vectors()) {
      own.set(name, { threshold, ties: left });
      left -= applyTrim(vector, { threshold, ties: left });
    }
    trims.push(own);
  }
  return trims;
}
