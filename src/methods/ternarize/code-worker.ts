import type { Rows } from '../row-workers.js';
import { type CodingTask, codeRows } from './maths/code-rows.js';
import type { LayerCodes } from './maths/codes.js';

/** A share of a layer. Weights, Hessian and codes are views of shared memory. */
interface Share extends Rows {
  task: CodingTask;
  codes: LayerCodes;
}

/** Worker entry of `CodePool`. */
export default function codeShare({ task, codes, from, to }: Share): void {
  codeRows(task, codes, { from, to });
}
