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

/**
 * The offset of the variant: the mean of both entropies' deviation over mean, of all samples. 0 where
 * nothing deviates, as of a single sample: that leaves DaWin as it is.
 */
export function dawinOffset(pretrained: Float64Array, tuned: Float64Array): Offset {
  const [p, q] = [pretrained, tuned].map(moments);
  const relative = ({ mean, deviation }: typeof p) => (deviation === 0 ? 0 : deviation / mean);
  return {
    offset: (relative(p) + relative(q)) / 2,
    // Of models alike in this, be they certain of everything, 2.
    weight: p.mean === q.mean ? 2 : (p.mean + q.mean) / p.mean,
  };
}

/** Mean, and the deviation of a sample (n - 1); 0 of too few. */
function moments(values: Float64Array): { mean: number; deviation: number } {
  const known = values.filter(Number.isFinite);
  const mean = known.reduce((a, b) => a + b, 0) / Math.max(known.length, 1);
  const squares = known.reduce((a, b) => a + (b - mean) ** 2, 0);
  return { mean, deviation: Math.sqrt(squares / Math.max(known.length - 1, 1)) };
}
