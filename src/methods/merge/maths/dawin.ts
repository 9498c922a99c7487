/** What DaWin adds for one model's lack of confidence over all samples. */
export interface Offset {
  offset: number;
  weight: number;
}

/**
 * DaWin's share of the fine-tuned model in each sample's weights: `e^-H(q) / (e^-H(p) + e^-H(q))`.
 * Source: Oh et al., DaWin: Training-free Dynamic Weight Interpolation, arXiv 2410.03782.
 * @param pretrained, tuned entropies H(p) and H(q) in nats [samples]
 */
export function dawin(
  pretrained: Float64Array,
  tuned: Float64Array,
  { offset, weight }: Offset = { offset: 0, weight: 1 },
): Float64Array {
  return tuned.map((h, n) => {
    const [a, b] = [Math.exp(-pretrained[n]), Math.exp(-h)];
    const share = (b + offset / weight) / (a + b + offset);
    return Number.isNaN(share) ? 0 : share;
  });
}

/** The offset of the variant: the mean of both entropies' deviation over mean, of all samples. */
export function dawinOffset(pretrained: Float64Array, tuned: Float64Array): Offset {
  const [p, q] = [pretrained, tuned].map(moments);
  return {
    offset: (p.deviation / p.mean + q.deviation / q.mean) / 2,
    weight: (p.mean + q.mean) / p.mean,
  };
}

/** Mean, and the deviation of a sample (n - 1). */
function moments(values: Float64Array): { mean: number; deviation: number } {
  const known = values.filter(Number.isFinite);
  const mean = known.reduce((a, b) => a + b, 0) / known.length;
  const squares = known.reduce((a, b) => a + (b - mean) ** 2, 0);
  return { mean, deviation: Math.sqrt(squares / (known.length - 1)) };
}
