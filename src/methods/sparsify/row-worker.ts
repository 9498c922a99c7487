import type { LayerMask, LayerTask } from './layer.js';
import { maskRowRange } from './layer.js';

/** A share of a layer. Weights, mask and trace are views of shared memory. */
export interface RowRange {
  task: LayerTask;
  result: LayerMask;
  from: number;
  to: number;
}

/** Worker entry of `RowPool`. */
export default function maskRange({ task, result, from, to }: RowRange): void {
  maskRowRange(task, result, from, to);
}
