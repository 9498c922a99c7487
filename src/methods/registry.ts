import type { z } from 'zod';
import { compress } from './compress/method.js';
import { dawin } from './merge/dawin/method.js';
import { dare } from './merge/static/dare.js';
import { linear, soup } from './merge/static/linear.js';
import { slerp } from './merge/static/slerp.js';
import { taskArithmetic } from './merge/static/task-arithmetic.js';
import { ties } from './merge/static/ties.js';
import { t3 } from './merge/t3/method.js';
import type { Method } from './method.js';
import { sparsify } from './sparsify/method.js';
import { ternarize } from './ternarize/method.js';
import { amnesiac, finetune, gradientAscent } from './unlearn/baselines/baselines.js';
import { laf } from './unlearn/laf/method.js';
import { ssd } from './unlearn/ssd/method.js';

/** Every method, by name. A new method is a folder and a line here. */
export const methods: Record<string, Method<z.ZodObject>> = {
  sparsify,
  ternarize,
  compress,
  ssd,
  laf,
  finetune,
  amnesiac,
  'gradient-ascent': gradientAscent,
  t3,
  dawin,
  linear,
  soup,
  'task-arithmetic': taskArithmetic,
  slerp,
  ties,
  dare,
};
