import { string } from '../../graph/build.js';
import { intAttribute, intsAttribute } from '../../graph/nodes.js';
import type { NodeProto } from '../../onnx/index.js';
import { type AxisMap, pullAxis } from '../axis-map.js';
import { div, expand, mul, product, reduceSum, reshape, scale, transpose, zeros } from '../emit.js';
import { refuse, single } from '../rule.js';
import { extraOutput, type Tape } from '../tape.js';
import { type Window, windowOf } from '../window.js';

/** y = max of each window: g goes to the cell that was taken, the first of equal ones. */
export const MaxPool = single((t, g, { node, need }) => {
  if (!need[0]) return [];
  const dims = t.dims(node.input[0]);
  poolWindow(t, node);
  // Indices count the cells of the whole tensor, with the spatial axes reversed in storage order 1.
  const reversed = dims.map((_, i) => (i < 2 ? i : dims.length + 1 - i));
  const perm = intAttribute(node, 'storage_order', 0) === 1 ? reversed : dims.map((_, i) => i);
  const flat = t.emit(
    'ScatterElements',
    [
      zeros(t, [product(dims)], node.input[0]),
      reshape(t, extraOutput(node, 1), [-1]),
      reshape(t, g, [-1]),
    ],
    [string('reduction', 'add')],
  );
  const stored = perm.map((axis) => dims[axis]);
  return [transpose(t, reshape(t, flat, stored), perm)];
});

/** y = x put where the indices say, zeros elsewhere: g is read there. */
export const MaxUnpool = single((t, g, { node, need }) =>
  need[0] ? [t.emit('Gather', [reshape(t, g, [-1]), node.input[1]])] : [],
);

/**
 * y = mean of each window, which is a constant matrix along each axis: dx = g times them all. Quicker than
 * a ConvTranspose (5.1 for 8.8 ms on 16 x 64 maps of 56², kernel 3, stride 2). Windows that merely tile the
 * image repeat g, which is linear in the size of the map.
 */
export const AveragePool = single((t, g, { node, need }) => {
  if (!need[0]) return [];
  const [x] = node.input;
  const dims = [...t.dims(node.output[0])];
  const w = poolWindow(t, node);
  const { image, kernel } = w;
  const tiled = kernel.every(
    (k, i) =>
      k === w.strides[i] &&
      k * w.places[i] === image[i] &&
      w.dilations[i] === 1 &&
      w.begin[i] === 0,
  );
  if (tiled) {
    const scales = t.floats([1, 1, ...kernel], [kernel.length + 2], x);
    const share = scale(t, g, 1 / product(kernel), x);
    const repetition = [
      string('mode', 'nearest'),
      string('coordinate_transformation_mode', 'asymmetric'),
      string('nearest_mode', 'floor'),
    ];
    return [t.emit('Resize', [share, '', scales], repetition)];
  }
  const counted = intAttribute(node, 'count_include_pad', 0) === 1;
  let dx = g;
  for (let i = kernel.length - 1; i >= 0; i--) {
    dx = pullAxis(t, dx, dims, i + 2, meanMap(w, i, counted), x);
    dims[i + 2] = image[i];
  }
  return [dx];
});

function poolWindow(t: Tape, node: NodeProto): Window {
  const [image, places] = [node.input[0], node.output[0]].map((name) => t.dims(name).slice(2));
  const w = windowOf(node, intsAttribute(node, 'kernel_shape') ?? [], image, places);
  // Before opset 22 the shape that is inferred has such a window, and what is computed has not.
  if (places.some((n, i) => (n - 1) * w.strides[i] >= image[i] + w.begin[i]))
    refuse(node, 'ceil_mode and a window behind the image');
  return w;
}

/** The means along axis `i`, whose product over the axes is the pooling; `counted`: over padding too. */
function meanMap(w: Window, i: number, counted: boolean): AxisMap {
  const [rows, columns] = [w.places[i], w.image[i]];
  const values = new Float64Array(rows * columns);
  for (let row = 0; row < rows; row++) {
    const taps = Array.from(
      { length: w.kernel[i] },
      (_, tap) => row * w.strides[i] - w.begin[i] + tap * w.dilations[i],
    );
    const cells = taps.filter((cell) => cell >= 0 && cell < columns);
    // What ceil_mode adds behind the padding is never counted.
    const count = counted ? taps.filter((cell) => cell < columns + w.end[i]).length : cells.length;
    for (const cell of cells) values[row * columns + cell] = 1 / count;
  }
  return { rows, columns, values };
}

/** y = mean over all spatial axes: dx = g / n. */
export const GlobalAveragePool = single((t, g, { node, need }) => {
  if (!need[0]) return [];
  const [x] = node.input;
  const dims = t.dims(x);
  return [expand(t, scale(t, g, 1 / product(dims.slice(2)), x), dims)];
});

/** y = max over all spatial axes: equal cells share g evenly, as those of ReduceMax do. */
export const GlobalMaxPool = single((t, g, { node, need }) => {
  if (!need[0]) return [];
  const [x] = node.input;
  const axes = t.dims(x).flatMap((_, i) => (i < 2 ? [] : [i]));
  const mask = t.emit('Equal', [x, node.output[0]]);
  const one = t.emit('Where', [mask, t.scalar(1, x), t.scalar(0, x)]);
  const share = div(t, g, reduceSum(t, one, axes, true));
  return [mul(t, one, share)];
});
