import { int } from '../../graph/build.js';
import { intAttribute } from '../../graph/nodes.js';
import type { NodeProto } from '../../onnx/index.js';
import { pad, product, reduceSum, reshape, slice, transpose } from '../emit.js';
import type { Tape } from '../tape.js';
import { missing, type Window, windowOf } from '../window.js';

/** A convolution of an image `[batch, channels, ...image]` to `[batch, filters, ...places]`. */
export interface Convolution extends Window {
  batch: number;
  channels: number;
  filters: number;
  group: number;
  /** `[filters, channels / group, ...kernel]`. */
  weight: readonly number[];
}

/** What a Conv node does. */
export function convolutionOf(t: Tape, node: NodeProto): Convolution {
  const weight = t.dims(node.input[1]);
  const [batch, channels, ...image] = t.dims(node.input[0]);
  return {
    ...windowOf(node, weight.slice(2), image, t.dims(node.output[0]).slice(2)),
    batch,
    channels,
    filters: weight[0],
    group: intAttribute(node, 'group', 1),
    weight,
  };
}

/**
 * dW of a convolution, of `c.weight`, from its image `x` and the gradient `g` of its result.
 *
 * All forms are matrix products of `g` with the cells of `x` under each tap of the kernel. ms on one
 * thread of an AVX-512 Xeon, ONNX Runtime 1.30, for batch, channels, filters, image, kernel, stride:
 *
 *                            per sample   one product   per tap
 *     16, 64, 64, 32, 3, 1      14.0          13.0        12.6
 *     16, 64, 128, 32, 3, 2      8.1           7.4         6.3
 *     64, 16, 16, 32, 3, 1       9.0           9.1         6.8
 *     64, 64, 64, 8, 3, 1        4.8           4.1         3.0
 *     16, 512, 512, 4, 3, 1     36.3           9.5        15.5
 *     1, 512, 512, 7, 3, 1       7.5           2.8         9.6
 *     64, 1, 32, 28, 3, 1        0.9           1.2         1.8
 *     4, 3, 64, 224, 7, 2       16.2          16.0       129
 *     16, 16, 96, 56, 1, 1       1.3           2.3         6.9
 *     16, 512, 512, 7, 1, 1      5.7           2.5         3.1
 *
 * A convolution of `g` over `x`, with batch and channels exchanged, takes twice as long.
 */
export function weightGradient(t: Tape, x: string, g: string, c: Convolution): string {
  const places = product(c.places);
  if (c.group > 1) return sumOfSamples(t, x, g, c);
  const taps = product(c.kernel);
  if (taps > 1 && c.channels >= 16 && c.batch * places > 1024) return productPerTap(t, x, g, c);
  return places > 256 ? sumOfSamples(t, x, g, c) : oneProduct(t, x, g, c);
}

/**
 * dW of a Conv node of each sample by itself: `[N, ...w dims]`.
 * @param g the gradient of its output
 */
export const perSampleWeightGradient = (t: Tape, node: NodeProto, g: string): string => {
  const c = convolutionOf(t, node);
  return reshape(t, perSample(t, node.input[0], g, c), [c.batch, ...c.weight]);
};

const sumOfSamples = (t: Tape, x: string, g: string, c: Convolution): string =>
  reshape(t, reduceSum(t, perSample(t, x, g, c), [0], false), c.weight);

/** Σ over the places, in each sample and group: `[N, G, filters / G, channels / G * taps]`. */
function perSample(t: Tape, x: string, g: string, c: Convolution): string {
  const [taps, places] = [product(c.kernel), product(c.places)];
  const image = padded(t, x, c, 2);
  const cells = tapsOf(t, image, c, 2).map((s) => reshape(t, s, [c.batch, c.channels, 1, places]));
  const rows = [c.batch, c.group, (c.channels / c.group) * taps, places];
  const columns = reshape(t, concat(t, cells, 2), rows);
  const grouped = reshape(t, g, [c.batch, c.group, c.filters / c.group, places]);
  return t.emit('FusedMatMul', [grouped, columns], [int('transB', 1)], 'com.microsoft');
}

/** Σ over samples and places at once, channels first. One group. */
function oneProduct(t: Tape, x: string, g: string, c: Convolution): string {
  const [taps, places] = [product(c.kernel), c.batch * product(c.places)];
  const channelsFirst = [1, 0, ...c.kernel.map((_, i) => i + 2)];
  const image = padded(t, transpose(t, x, channelsFirst), c, 2);
  const cells = tapsOf(t, image, c, 2).map((s) => reshape(t, s, [c.channels, 1, places]));
  const columns = reshape(t, concat(t, cells, 1), [c.channels * taps, places]);
  const rows = reshape(t, transpose(t, g, channelsFirst), [c.filters, places]);
  return reshape(t, t.emit('Gemm', [rows, columns], [int('transB', 1)]), c.weight);
}

/** Σ over samples and places for each tap, channels last. One group. */
function productPerTap(t: Tape, x: string, g: string, c: Convolution): string {
  const [taps, places] = [product(c.kernel), c.batch * product(c.places)];
  const channelsLast = [0, ...c.kernel.map((_, i) => i + 2), 1];
  const image = padded(t, transpose(t, x, channelsLast), c, 1);
  const rows = reshape(t, transpose(t, g, channelsLast), [places, c.filters]);
  const parts = tapsOf(t, image, c, 1).map((s) =>
    t.emit('Gemm', [rows, reshape(t, s, [places, c.channels])], [int('transA', 1)]),
  );
  const stacked = reshape(t, concat(t, parts, 0), [taps, c.filters, c.channels]);
  return reshape(t, transpose(t, stacked, [1, 2, 0]), c.weight);
}

/** The image with its padding; its spatial axes begin at `axis` of rank + 2. */
function padded(t: Tape, x: string, c: Convolution, axis: number): string {
  const around = (pads: readonly number[]) => (axis === 2 ? [0, 0, ...pads] : [0, ...pads, 0]);
  return pad(t, x, around(c.begin), around(missing(c)));
}

/** For each tap of the kernel the cells of the padded image under it, in all places. */
function tapsOf(t: Tape, x: string, c: Convolution, axis: number): string[] {
  const axes = c.kernel.map((_, i) => axis + i);
  const end = missing(c);
  const whole = c.image.every(
    (size, i) => size + c.begin[i] + end[i] === c.places[i] && c.strides[i] === 1,
  );
  // A kernel of one cell, on every cell.
  if (whole) return [x];
  return Array.from({ length: product(c.kernel) }, (_, tap) => {
    const starts: number[] = [];
    for (let i = c.kernel.length - 1, rest = tap; i >= 0; i--) {
      starts[i] = (rest % c.kernel[i]) * c.dilations[i];
      rest = Math.floor(rest / c.kernel[i]);
    }
    const ends = starts.map((start, i) => start + (c.places[i] - 1) * c.strides[i] + 1);
    return slice(t, x, axes, starts, ends, c.strides);
  });
}

const concat = (t: Tape, parts: string[], axis: number): string =>
  parts.length === 1 ? parts[0] : t.emit('Concat', parts, [int('axis', axis)]);
