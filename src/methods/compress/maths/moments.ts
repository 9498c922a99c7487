/** Mean [N] and covariance [N, N] of the channels of a tensor, over images and positions. */
export interface Moments {
  mean: Float64Array;
  covariance: Float64Array;
}

/** Of the compressed network's n channels, and with the original's. */
export interface CompressedMoments extends Moments {
  /** [N, n] Cov(original, compressed). */
  cross: Float64Array;
}

/** A tensor in the original network and, once something before it was changed, in the compressed. */
export interface Signal {
  original: Moments;
  compressed?: CompressedMoments;
}

/** An input whose channels are normalised and independent. */
export function standardInput(channels: number): Moments {
  const covariance = new Float64Array(channels * channels);
  for (let i = 0; i < channels; i++) covariance[i * (channels + 1)] = 1;
  return { mean: new Float64Array(channels), covariance };
}

/** The moments of a sum of two tensors of the same channels, taken to be uncorrelated. */
export function addSignals(a: Signal, b: Signal): Signal {
  const original = addMoments(a.original, b.original);
  if (!a.compressed && !b.compressed) return { original };
  const left = a.compressed ?? unchanged(a.original);
  const right = b.compressed ?? unchanged(b.original);
  const cross = left.cross.map((x, k) => x + right.cross[k]);
  return { original, compressed: { ...addMoments(left, right), cross } };
}

function addMoments(a: Moments, b: Moments): Moments {
  return {
    mean: a.mean.map((x, k) => x + b.mean[k]),
    covariance: a.covariance.map((x, k) => x + b.covariance[k]),
  };
}

/** The moments that a tensor has in the compressed network as long as it is the same in both. */
export function unchanged(original: Moments): CompressedMoments {
  return { ...original, cross: original.covariance };
}
