import type { Rows } from '../row-workers.js';
import type { LayerMask, LayerTask } from './layer.js';
import { maskRowRange } from './layer.js';

/** A share of a layer. Weights, mask and trace are views of shared memory. */
interface Share extends Rows {
  task: LayerTask;
  result: LayerMask;
}

/** Worker entry of `RowPool`. */
export default function maskRange({ task, result, from, to }: Share): void {
  maskRowRange(task, result, from, to);
}
