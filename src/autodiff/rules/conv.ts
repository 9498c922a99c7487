import { int, ints } from '../../graph/build.js';
import { intAttribute, intsAttribute, stringAttribute } from '../../graph/nodes.js';
import type { NodeProto } from '../../onnx/index.js';
import { product, reduceSum, reshape, slice, transpose } from '../emit.js';
import { single } from '../rule.js';
import type { Tape } from '../tape.js';
import { explicitPads, extent, missing, shared, span, steps } from '../window.js';
import { type Convolution, convolutionOf, weightGradient } from './conv-weight.js';

/** y = x * w + b, any rank, group, stride, dilation and padding: dx = g *ᵀ w, dw = x * g, db = Σ g. */
export const Conv = single((t, g, { node, need }) => {
  const [x, w] = node.input;
  const c = convolutionOf(t, node);
  return [
    need[0] ? imageGradient(t, g, w, c) : undefined,
    need[1] ? weightGradient(t, x, g, c) : undefined,
    need[2] ? biasGradient(t, g, c) : undefined,
  ];
});

/** y = x *ᵀ w + b, which is to a convolution what dx is to its y: dx = g * w, dw = g * x, db = Σ g. */
export const ConvTranspose = single((t, g, { node, need }) => {
  const [x, w] = node.input;
  const c = transposedConvolution(t, node);
  return [
    need[0] ? convolve(t, g, w, c) : undefined,
    need[1] ? weightGradient(t, g, x, c) : undefined,
    need[2] ? biasGradient(t, g, c) : undefined,
  ];
});

const biasGradient = (t: Tape, g: string, c: Convolution): string =>
  reduceSum(t, g, [0, ...c.kernel.map((_, i) => i + 2)], false);

/** The convolution from the output of a ConvTranspose node to its input. */
function transposedConvolution(t: Tape, node: NodeProto): Convolution {
  const weight = t.dims(node.input[1]);
  const kernel = weight.slice(2);
  const [batch, channels, ...image] = t.dims(node.output[0]);
  const places = t.dims(node.input[0]).slice(2);
  const window = { image, places, kernel, ...steps(node, kernel.length) };
  const auto = stringAttribute(node, 'auto_pad', 'NOTSET');
  const more = intsAttribute(node, 'output_padding') ?? kernel.map(() => 0);
  const total = kernel.map((_, i) => Math.max(0, span(window, i) + more[i] - image[i]));
  const pads =
    auto === 'NOTSET' && !intsAttribute(node, 'output_shape')
      ? explicitPads(node, kernel.length)
      : shared(total, auto !== 'SAME_UPPER');
  const group = intAttribute(node, 'group', 1);
  return { ...window, ...pads, batch, channels, filters: weight[0], group, weight };
}

const convolve = (t: Tape, x: string, w: string, c: Convolution): string =>
  t.emit(
    'Conv',
    [x, w],
    [
      int('group', c.group),
      ints('strides', c.strides),
      ints('dilations', c.dilations),
      ints('pads', [...c.begin, ...missing(c)]),
    ],
  );

/**
 * dX of a convolution. With stride 1 it is a convolution with the flipped kernel: ONNX Runtime computes
 * it faster than a ConvTranspose (3.1 for 4.9 ms depthwise, 9.8 for 11.3 ms on 64 channels of 32²) unless
 * flipping the weights costs more than that (8.5 for 2.6 ms on 512 channels of 7², batch 1) or few
 * channels come out (3.0 for 0.8 ms with 1).
 */
function imageGradient(t: Tape, g: string, w: string, c: Convolution): string {
  const flip =
    c.strides.every((s) => s === 1) &&
    c.kernel.every((_, i) => Math.max(c.begin[i], c.end[i]) < extent(c, i)) &&
    c.channels >= 16 &&
    c.batch * c.filters * product(c.places) >= 4 * product(c.weight);
  if (flip) {
    const pads = [c.begin, c.end].flatMap((p) => p.map((n, i) => extent(c, i) - 1 - n));
    return t.emit(
      'Conv',
      [g, flipped(t, w, c)],
      [int('group', c.group), ints('dilations', c.dilations), ints('pads', pads)],
    );
  }
  return t.emit(
    'ConvTranspose',
    [g, w],
    [
      int('group', c.group),
      ints('strides', c.strides),
      ints('dilations', c.dilations),
      ints('pads', [...c.begin, ...c.end]),
      // Cells at the end that no placement of the kernel reaches.
      ints(
        'output_padding',
        c.image.map((n, i) => n + c.begin[i] + c.end[i] - span(c, i)),
      ),
    ],
  );
}

/** `w [filters, channels / group, ...kernel]` flipped, as `[channels, filters / group, ...kernel]`. */
function flipped(t: Tape, w: string, c: Convolution): string {
  const [filters, channels] = [c.filters / c.group, c.channels / c.group];
  const axes = c.kernel.map((_, i) => i + 2);
  const all = (value: number) => axes.map(() => value);
  const turned = product(c.kernel) === 1 ? w : slice(t, w, axes, all(-1), all(-(2 ** 31)), all(-1));
  if (c.group === 1) return transpose(t, turned, [1, 0, ...axes]);
  if (filters === 1 && channels === 1) return turned;
  const grouped = reshape(t, turned, [c.group, filters, channels, ...c.kernel]);
  const exchanged = transpose(t, grouped, [0, 2, 1, ...axes.map((a) => a + 1)]);
  return reshape(t, exchanged, [c.channels, filters, ...c.kernel]);
}
