import { decodeRow, type LayerCodes, type LayerWeights } from './codes.js';

/** a·bᵀ [m, n] of a [m, k] and b [n, k]. */
export type TimesTransposed = (
  a: Float32Array,
  b: Float32Array,
  k: number,
) => Promise<Float32Array>;

/** Outputs at once: what they need beside the inputs stays below some megabytes. */
const BAND_FLOATS = 1 << 21;

/** Inputs that took no part in coding, to tell what codes lose at the output of a layer. */
export class HeldOut {
  private constructor(
    readonly layer: LayerWeights,
    /** x [n, cols] */
    readonly x: Float32Array,
    readonly product: TimesTransposed,
    /** Σ‖x·Wᵀ‖² */
    readonly power: number,
  ) {}

  /** @param x [n, cols] */
  static async of(
    layer: LayerWeights,
    x: Float32Array,
    product: TimesTransposed,
  ): Promise<HeldOut> {
    const { w, cols } = layer;
    const rows = (from: number, to: number) => w.subarray(from * cols, to * cols);
    const power = await sumOfSquares(layer, x, product, rows);
    return new HeldOut(layer, x, product, power);
  }

  /**
   * Σ‖x·(W - Ŵ)ᵀ - b‖² / Σ‖x·Wᵀ‖², in float32 products and float64 sums. Infinity for NaN, 0 for 0/0.
   * @param bias [rows] added to make up for the loss; 0 when absent
   */
  async error(codes: LayerCodes, bias?: Float64Array): Promise<number> {
    const { w, cols } = this.layer;
    const lost = (from: number, to: number) => {
      const rows = new Float32Array((to - from) * cols);
      for (let r = from; r < to; r++) decodeRow(codes, r, rows, (r - from) * cols);
      for (let k = 0; k < rows.length; k++) rows[k] = w[from * cols + k] - rows[k];
      return rows;
    };
    const error = await sumOfSquares(this.layer, this.x, this.product, lost, bias);
    const relative = error === 0 ? 0 : error / this.power;
    return Number.isNaN(relative) ? Number.POSITIVE_INFINITY : relative;
  }
}

/** Σ (x·vᵀ - b)² over the rows v that `rowsOf` gives, band by band. */
async function sumOfSquares(
  { rows, cols }: LayerWeights,
  x: Float32Array,
  product: TimesTransposed,
  rowsOf: (from: number, to: number) => Float32Array,
  bias?: Float64Array,
): Promise<number> {
  const n = x.length / cols;
  const band = Math.max(1, Math.floor(BAND_FLOATS / Math.max(n, cols)));
  let sum = 0;
  for (let from = 0; from < rows; from += band) {
    const to = Math.min(from + band, rows);
    const y = await product(x, rowsOf(from, to), cols);
    for (let k = 0; k < y.length; k++) {
      const d = y[k] - (bias ? bias[from + (k % (to - from))] : 0);
      sum += d * d;
    }
  }
  return sum;
}
