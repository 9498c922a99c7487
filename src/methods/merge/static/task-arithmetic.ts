import { z } from 'zod';
import { addTaskVectors, taskVector } from '../maths/task-vectors.js';
import { bnParameter } from '../prepare.js';
import { keepPositive } from './linear.js';
import { staticMethod } from './static-method.js';

export const taskArithmetic = staticMethod({
  name: 'task-arithmetic',
  summary: 'Add to a base what models have learnt beyond it, or take it away (task arithmetic).',
  references: [{ title: 'Editing Models with Task Arithmetic', arxiv: '2212.04089' }],
  parameters: z.object({
    scale: z
      .number()
      .default(0.3)
      .describe('of the sum of what they have learnt; below 0 the base forgets it'),
    bn: bnParameter,
  }),
  examples: [
    '<%= config.bin %> merge task-arithmetic a.onnx b.onnx --base base.onnx -o out.onnx --scale 0.4',
    '<%= config.bin %> merge task-arithmetic a.onnx --base base.onnx -o out.onnx --scale -0.5',
  ],
  models: 'some',
  fromBase: true,
  elementwise: true,

  merger:
    ({ scale }) =>
    (values, { role }) => {
      const base = values[values.length - 1];
      const vectors = values.slice(0, -1).map((tuned) => taskVector(tuned, base));
      const merged = addTaskVectors(base, vectors, scale);
      if (role === 'variance') keepPositive(merged);
      return merged;
    },
});
