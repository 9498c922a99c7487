import type { ConstantView } from '../constants.js';

/** Positions that stay along each axis, ascending; undefined where all do. */
export type Kept = readonly (readonly number[] | undefined)[];

/**
 * The elements of a stored tensor at the kept positions, row-major in the order of the view's axes.
 * @param raw the stored tensor's bytes
 * @param width bytes of an element
 */
export function gather(
  raw: Uint8Array,
  width: number,
  axes: ConstantView['axes'],
  kept: Kept,
): Uint8Array {
  const counts = axes.map(({ size }, i) => kept[i]?.length ?? size);
  const out = new Uint8Array(counts.reduce((n, count) => n * count, width));
  // The last axes of which everything stays, in storage order, are copied as one run.
  let whole = axes.length;
  let run = 1;
  while (whole > 0 && !kept[whole - 1] && axes[whole - 1].stride === run) run *= axes[--whole].size;
  let to = 0;
  const copy = (axis: number, from: number) => {
    if (axis === whole) {
      const start = from * width;
      out.set(raw.subarray(start, start + run * width), to);
      to += run * width;
      return;
    }
    const { stride } = axes[axis];
    const positions = kept[axis];
    for (let i = 0; i < counts[axis]; i++) copy(axis + 1, from + (positions?.[i] ?? i) * stride);
  };
  if (out.length > 0) copy(0, 0);
  return out;
}

/**
 * As `gather`, for the weight `[a, b/groups, ...]` of a grouped convolution.
 * @param first positions that stay along the first axis, over all groups
 * @param second positions that stay along the second, over all groups, equally many in each
 */
export function gatherGrouped(
  raw: Uint8Array,
  width: number,
  axes: ConstantView['axes'],
  groups: number,
  [first, second]: Kept,
): Uint8Array {
  const [outer, inner, ...rest] = axes;
  const size = outer.size / groups;
  const pieces: Uint8Array[] = [];
  for (let g = 0; g < groups; g++) {
    const own = (positions: readonly number[] | undefined, length: number) =>
      positions
        ?.filter((p) => p >= g * length && p < (g + 1) * length)
        .map((position) => position - g * length);
    const start = g * size * outer.stride * width;
    const part = [{ ...outer, size }, inner, ...rest];
    pieces.push(
      gather(raw.subarray(start), width, part, [own(first, size), own(second, inner.size)]),
    );
  }
  return new Uint8Array(Buffer.concat(pieces));
}
