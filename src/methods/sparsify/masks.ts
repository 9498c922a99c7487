import type { Pattern } from './pattern.js';
import { zerosPerRow } from './pattern.js';
import { RankSelector } from './rank.js';

/** Makes the mask (1 = keep) of one row after another from its scores. */
export class RowMasker {
  readonly #selector = new RankSelector();
  readonly #pattern: Pattern;

  constructor(pattern: Pattern) {
    this.#pattern = pattern;
  }

  /**
   * Mask of a row, into `mask[start..start + cols)`, from the bits of its scores [cols]. The lowest
   * scores are pruned; of equal ones the lower column first.
   */
  maskRow(scores: Int32Array, mask: Uint8Array, start: number): void {
    const pattern = this.#pattern;
    const cols = scores.length;
    if (pattern.kind === 'unstructured') {
      this.#selector.flagLowest(scores, 0, cols, zerosPerRow(pattern, cols), mask, start);
      return;
    }
    for (let group = 0; group < cols; group += pattern.m) {
      this.#selector.flagLowest(scores, group, group + pattern.m, pattern.n, mask, start);
    }
  }
}

/**
 * Stand-alone magnitude pruning of w [rows, cols]. Unstructured: one threshold for the layer, |W| of
 * rank trunc(rows·cols·sparsity), and every weight up to it is pruned, so at least one more than
 * asked for; none when that rank is 0. N:M: the lowest |W| of each group, the lower column first.
 */
export function magnitudeLayerMask(
  w: Float32Array,
  rows: number,
  cols: number,
  pattern: Pattern,
): Uint8Array {
  const mask = new Uint8Array(rows * cols);
  const bits = new Int32Array(w.buffer, w.byteOffset, w.length);
  if (pattern.kind === 'unstructured') {
    const rank = Math.trunc(w.length * pattern.sparsity);
    new RankSelector().flagUpToRank(bits, rank, mask);
  } else {
    // Groups do not cross rows, so all rows are one long one.
    new RowMasker(pattern).maskRow(bits, mask, 0);
  }
  return mask;
}
