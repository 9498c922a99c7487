import { z } from 'zod';
import { dareKey, dare as dropEntries } from '../maths/dare.js';
import { addElected, addTaskVectors, taskVector } from '../maths/task-vectors.js';
import { bnParameter } from '../prepare.js';
import { staticMethod } from './static-method.js';
import { meanOfTuned } from './ties.js';

export const dare = staticMethod({
  name: 'dare',
  summary: 'Merge a random part of what models have learnt beyond a base, scaled up (DARE).',
  references: [
    {
      title:
        'Language Models are Super Mario: Absorbing Abilities from Homologous Models as a Free Lunch',
      arxiv: '2311.03099',
    },
  ],
  parameters: z.object({
    density: z
      .number()
      .gt(0)
      .max(1)
      .default(0.5)
      .describe('share of the changes that stays, drawn with --seed, and is divided by it'),
    combine: z
      .enum(['sum', 'ties'])
      .default('sum')
      .describe('add what is left, or elect a sign for each entry and take the mean that has it'),
    scale: z
      .number()
      .optional()
      .describe('of the merged change (default: 1 over the number of models; 1 with ties)'),
    bn: bnParameter,
  }),
  examples: [
    '<%= config.bin %> merge dare a.onnx b.onnx --base base.onnx -o out.onnx --density 0.3 --seed 7',
  ],
  models: 'some',
  fromBase: true,
  elementwise: false,

  merger:
    ({ density, combine, scale }, { seed }) =>
    (values, { role, name }) => {
      if (role !== 'weight') return meanOfTuned(values);
      const base = values[values.length - 1];
      const vectors = values.slice(0, -1).map((tuned) => {
        const vector = taskVector(tuned, base);
        dropEntries(vector, density, dareKey(seed, name, tuned));
        return vector;
      });
      return combine === 'ties'
        ? addElected(base, vectors, scale ?? 1)
        : addTaskVectors(base, vectors, scale ?? 1 / vectors.length);
    },
});
