import type { z } from 'zod';
import { compress } from './compress/method.js';
import type { Method } from './method.js';
import { sparsify } from './sparsify/method.js';
import { ternarize } from './ternarize/method.js';
import { amnesiac, finetune, gradientAscent } from './unlearn/baselines.js';
import { ssd } from './unlearn/ssd-method.js';

/** Every method, by name. A new method is a folder and a line here. */
export const methods: Record<string, Method<z.ZodObject>> = {
  sparsify,
  ternarize,
  compress,
  ssd,
  finetune,
  amnesiac,
  'gradient-ascent': gradientAscent,
};
