import { intsAttribute, stringAttribute } from '../graph/nodes.js';
import type { NodeProto } from '../onnx/index.js';

/** How a convolution or pooling op slides over its image; each has one entry per spatial axis. */
export interface Window {
  /** Sizes of the image. */
  image: readonly number[];
  /** In how many places the kernel is laid on it. */
  places: readonly number[];
  kernel: readonly number[];
  strides: readonly number[];
  dilations: readonly number[];
  /** Padding before and after the image. */
  begin: readonly number[];
  end: readonly number[];
}

/**
 * The window of a Conv or pooling node, auto_pad resolved.
 * @param image spatial dims of its input
 * @param places spatial dims of its output
 */
export function windowOf(
  node: NodeProto,
  kernel: readonly number[],
  image: readonly number[],
  places: readonly number[],
): Window {
  const window = { image, places, kernel, ...steps(node, kernel.length) };
  const auto = stringAttribute(node, 'auto_pad', 'NOTSET');
  if (auto === 'NOTSET') return { ...window, ...explicitPads(node, kernel.length) };
  const total = kernel.map((_, i) =>
    auto === 'VALID' ? 0 : Math.max(0, span(window, i) - image[i]),
  );
  return { ...window, ...shared(total, auto === 'SAME_LOWER') };
}

/** Strides and dilations, 1 unless the node says otherwise. */
export const steps = (node: NodeProto, rank: number) => ({
  strides: intsAttribute(node, 'strides') ?? Array.from({ length: rank }, () => 1),
  dilations: intsAttribute(node, 'dilations') ?? Array.from({ length: rank }, () => 1),
});

export const explicitPads = (node: NodeProto, rank: number) => {
  const pads = intsAttribute(node, 'pads') ?? Array.from({ length: 2 * rank }, () => 0);
  return { begin: pads.slice(0, rank), end: pads.slice(rank) };
};

/** Padding divided between both ends of each axis; the odd cell goes to the end unless `lower`. */
export function shared(total: readonly number[], lower: boolean) {
  const begin = total.map((n) => (lower ? Math.ceil(n / 2) : Math.floor(n / 2)));
  return { begin, end: total.map((n, i) => n - begin[i]) };
}

/** Cells from the first to the last of one placement of the kernel along axis `i`. */
export const extent = (w: Pick<Window, 'kernel' | 'dilations'>, i: number): number =>
  w.dilations[i] * (w.kernel[i] - 1) + 1;

/** Cells from the first to the last of all placements of the kernel along axis `i`. */
export const span = (w: Omit<Window, 'image' | 'begin' | 'end'>, i: number): number =>
  (w.places[i] - 1) * w.strides[i] + extent(w, i);

/** What is missing after the image, behind `begin`, for the last placement of the kernel. */
export const missing = (w: Omit<Window, 'end'>): number[] =>
  w.image.map((size, i) => Math.max(0, span(w, i) - size - w.begin[i]));
