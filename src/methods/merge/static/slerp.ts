import { z } from 'zod';
import { weightedSum } from '../maths/linear.js';
import { slerp as slerpValues } from '../maths/slerp.js';
import { bnParameter } from '../prepare.js';
import { staticMethod } from './static-method.js';

export const slerp = staticMethod({
  name: 'slerp',
  summary: 'Merge two models along the arc between their weights, tensor by tensor (SLERP).',
  references: [],
  parameters: z.object({
    t: z.number().min(0).max(1).default(0.5).describe('0 is the first model, 1 the second'),
    bn: bnParameter,
  }),
  examples: ['<%= config.bin %> merge slerp a.onnx b.onnx -o out.onnx --t 0.3'],
  models: 'one',
  fromBase: false,
  elementwise: false,

  merger({ t }) {
    return ([a, b], { role }) =>
      // Statistics and single numbers have no direction.
      role === 'weight' && a.length > 1 ? slerpValues(a, b, t) : weightedSum([a, b], [1 - t, t]);
  },
});
