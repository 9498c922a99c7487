/** Shapes of values; no dims where they are not known. The size of the batch may be any. */
export type Shapes = ReadonlyMap<string, { readonly dims?: readonly number[] }>;

/** Where a tensor's channels lie. */
export interface Layout {
  dims: readonly number[];
  /** The axis of the channels. */
  axis: number;
  /** What a Flatten put on the channels' axis besides them. */
  folded?: Folded;
}

export interface Folded {
  /** Sizes of the axes that are gone. */
  sizes: readonly number[];
  /** Whether the channels are the slower part of a feature's index, as in NCHW. */
  channelsFirst: boolean;
}

/** The axes of positions: neither that of the channels nor the first, of the batch. */
export const positionAxes = ({ dims, axis }: Layout): number[] =>
  dims.flatMap((_, i) => (i === axis || i === 0 ? [] : [i]));

const product = (sizes: readonly number[]): number => sizes.reduce((a, b) => a * b, 1);

/**
 * Where the channels are when the dims change: on an axis by themselves, or on one that has the positions
 * behind them as well, or those before them.
 */
export function reshapedLayout(layout: Layout, dims: readonly number[]): Layout | undefined {
  const { dims: before, axis, folded } = layout;
  const features = before[axis];
  const outer = product(before.slice(0, axis));
  for (let to = 0; to < dims.length; to++) {
    const lead = product(dims.slice(0, to));
    const tail = product(dims.slice(to + 1));
    if (lead === outer && dims[to] === features && (features > 1 || to === axis)) {
      return { dims, axis: to, folded };
    }
    if (folded || features === 1 || dims[to] <= features || dims[to] % features) continue;
    const merged = dims[to] / features;
    const behind = before.slice(axis + 1);
    if (lead === outer) {
      const count = behind.findIndex((_, i) => product(behind.slice(0, i + 1)) === merged) + 1;
      if (count > 0) return { dims, axis: to, folded: fold(behind.slice(0, count), true) };
    } else if (tail === product(behind)) {
      const front = before.slice(0, axis);
      const first = front.findLastIndex((_, i) => product(front.slice(i)) === merged);
      if (first >= 0) return { dims, axis: to, folded: fold(front.slice(first), false) };
    }
  }
  return undefined;
}

const fold = (sizes: readonly number[], channelsFirst: boolean): Folded => ({
  sizes,
  channelsFirst,
});

/**
 * The mean of r^distance over all pairs of positions of a box: the variance of a mean over it by that
 * of one position. Counted by displacement.
 */
export function meanCorrelation(sizes: readonly number[], r: number): number {
  const total = sizes.reduce((a, b) => a * b, 1);
  let sum = 0;
  for (let k = 0; k < total; k++) {
    let rest = k;
    let pairs = 1;
    let square = 0;
    for (const size of sizes) {
      const step = rest % size;
      rest = Math.floor(rest / size);
      pairs *= (size - step) * (step > 0 ? 2 : 1);
      square += step * step;
    }
    sum += pairs * r ** Math.sqrt(square);
  }
  return sum / (total * total);
}
