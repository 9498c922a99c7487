/**
 * Token rows that a layer's output error is measured on, and what pruning takes from the output of
 * each: the squared length of `residual[row]` is that row's loss.
 */
export interface OutputLoss {
  /** Number of token rows, n. */
  count: number;
  /** [cols, n] the sampled inputs, one input channel after the other. */
  samples: Float32Array;
  /** [rows, n] Σ over pruned weights of w·x, for the initial mask. Follows the mask as it changes. */
  residual: Float32Array;
}

/** Decides on swaps of one row by what they do to its loss. */
export class LossGate {
  readonly #loss: OutputLoss;

  constructor(loss: OutputLoss) {
    this.#loss = loss;
  }

  /**
   * Swaps a pruned weight for a kept one, if that lowers the loss of the row.
   * @param grown weight that comes back, of column `grow`; `pruned` goes, of column `prune`
   * @returns whether it did
   */
  trySwap(row: number, grow: number, grown: number, prune: number, pruned: number): boolean {
    const { count, samples, residual } = this.#loss;
    const at = row * count;
    const growAt = grow * count;
    const pruneAt = prune * count;
    let change = 0;
    for (let t = 0; t < count; t++) {
      const step = pruned * samples[pruneAt + t] - grown * samples[growAt + t];
      change += step * (2 * residual[at + t] + step);
    }
    if (!(change < 0)) return false;
    for (let t = 0; t < count; t++) {
      residual[at + t] += pruned * samples[pruneAt + t] - grown * samples[growAt + t];
    }
    return true;
  }
}
