/**
 * What pruning costs a layer's output on sampled token rows X [n, cols]. With δ [rows, cols] the
 * pruned weights of a mask, kept ones being 0, the loss of a row is ‖Xδᵀ‖² = δ·G·δᵀ, G = XᵀX.
 */
export interface OutputLoss {
  /** [cols, cols] G. */
  gram: Float32Array;
  /** [rows, cols] δ·G. Follows the mask as it changes. */
  gradient: Float32Array;
}

/** Decides on swaps of one row by what they do to its loss. */
export class LossGate {
  readonly #loss: OutputLoss;
  readonly #cols: number;

  constructor(loss: OutputLoss) {
    this.#loss = loss;
    this.#cols = Math.sqrt(loss.gram.length);
  }

  /**
   * Swaps a pruned weight for a kept one, if that lowers the loss of the row.
   * @param grown weight that comes back, of column `grow`; `pruned` goes, of column `prune`
   * @returns whether it did
   */
  trySwap(row: number, grow: number, grown: number, prune: number, pruned: number): boolean {
    const { gram, gradient } = this.#loss;
    const cols = this.#cols;
    const at = row * cols;
    const growAt = grow * cols;
    const pruneAt = prune * cols;
    // (δ + s)G(δ + s)ᵀ - δGδᵀ for the step s: `pruned` enters δ, `grown` leaves it.
    const change =
      2 * (pruned * gradient[at + prune] - grown * gradient[at + grow]) +
      pruned * pruned * gram[pruneAt + prune] +
      grown * grown * gram[growAt + grow] -
      2 * pruned * grown * gram[pruneAt + grow];
    if (!(change < 0)) return false;
    for (let j = 0; j < cols; j++) {
      gradient[at + j] += pruned * gram[pruneAt + j] - grown * gram[growAt + j];
    }
    return true;
  }
}
