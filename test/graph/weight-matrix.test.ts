import fc from 'fast-check';
import { Graph } from '../../src/graph/graph.js';
import { findLinearLayers } from '../../src/graph/linear-layers.js';
import { maskEdit, readMatrix, replaceEdit } from '../../src/graph/weight-matrix.js';
import {
  type DType,
  dtypeBits,
  dtypeCode,
  encodeModel,
  type Model,
  type ModelProto,
  makeTensor,
  type NodeProto,
  parseModel,
  serializeModel,
  type TensorProto,
} from '../../src/onnx/index.js';
import { floats, ints, model, node, value } from '../support/protos.js';
import { runOnce } from '../support/run.js';
import { noiseTensor } from './helpers.js';

/** How a weight is stored and how its layer reads it. */
interface Storage {
  name: string;
  /** Shape of the stored tensor for a weight `[rows, cols]`. */
  shape: (rows: number, cols: number) => number[];
  /** From the stored (or dequantized, or cast) tensor `v` to the layer's weight `w`. */
  path: NodeProto[];
  layer: NodeProto;
  /** Dimensions of the weight as the layer sees it, out and in axes: how `w` is to be read. */
  outFirst: boolean;
  more?: (rows: number, cols: number) => TensorProto[];
}

const same = [node('Identity', ['v'], ['w'])];
const dense = node('MatMul', ['x', 'w'], ['y']);
const transB = node('Gemm', ['x', 'w'], ['y'], { transB: 1 });
const conv = node('Conv', ['x', 'w'], ['y']);

const storages: Storage[] = [
  { name: '[in, out]', shape: (r, c) => [c, r], path: same, layer: dense, outFirst: false },
  { name: '[out, in]', shape: (r, c) => [r, c], path: same, layer: transB, outFirst: true },
  {
    name: '[out, in], transposed',
    shape: (r, c) => [r, c],
    path: [node('Transpose', ['v'], ['w'])],
    layer: dense,
    outFirst: false,
  },
  {
    name: 'flat',
    shape: (r, c) => [r * c],
    path: [node('Reshape', ['v', 'shape'], ['w'])],
    layer: transB,
    outFirst: true,
    more: (r, c) => [ints('shape', r, c)],
  },
  { name: 'convolution', shape: (r, c) => [r, c, 2, 3], path: same, layer: conv, outFirst: true },
  {
    name: 'convolution, channels last',
    shape: (r, c) => [2, 3, c, r],
    path: [node('Transpose', ['v'], ['w'], { perm: [3, 2, 0, 1] })],
    layer: conv,
    outFirst: true,
  },
];

const floatTypes: DType[] = ['float32', 'float64', 'float16', 'bfloat16'];
const levelTypes: DType[] = ['int8', 'uint8', 'int16', 'uint16'];

interface Case {
  storage: Storage;
  dtype: DType;
  rows: number;
  cols: number;
  /** Axis of the stored tensor that has a scale for each position; 'tensor' for one scale. */
  scales: number | 'tensor';
  zeroPoint: boolean;
  bytes: Uint8Array;
}

const cases = fc
  .record({
    storage: fc.constantFrom(...storages),
    dtype: fc.constantFrom(...floatTypes, ...levelTypes),
    rows: fc.integer({ min: 1, max: 9 }),
    cols: fc.integer({ min: 1, max: 70 }),
    axis: fc.nat(),
    perAxis: fc.boolean(),
    zeroPoint: fc.boolean(),
    seed: fc.nat(),
  })
  .map(({ axis, perAxis, seed, ...rest }): Case => {
    const shape = rest.storage.shape(rest.rows, rest.cols);
    const length = (shape.reduce((a, b) => a * b, 1) * dtypeBits(rest.dtype)) / 8;
    let state = seed | 1;
    const bytes = Uint8Array.from({ length }, () => {
      state = (Math.imul(state, 1664525) + 1013904223) | 0;
      return state >>> 24;
    });
    return { ...rest, bytes, scales: perAxis ? axis % shape.length : 'tensor' };
  });

const isQuantized = ({ dtype }: Case) => levelTypes.includes(dtype);

function build(c: Case): ModelProto {
  const { storage, dtype, rows, cols, bytes, scales, zeroPoint } = c;
  const shape = storage.shape(rows, cols);
  const count = scales === 'tensor' ? 1 : shape[scales];
  const scaleShape = scales === 'tensor' ? [] : [count];
  const zeros = bytes.slice(0, (count * dtypeBits(dtype)) / 8);
  const quantization = [
    floats(
      'scale',
      scaleShape,
      Float32Array.from({ length: count }, (_, i) => 0.01 * (i + 1)),
    ),
    ...(zeroPoint ? [makeTensor({ name: 'zero', dtype, shape: scaleShape, bytes: zeros })] : []),
  ];
  return model(
    {
      input: [value('x', ['n', 'c', 'h', 'w'].slice(0, storage.layer === conv ? 4 : 2))],
      initializer: [
        makeTensor({ name: 'stored', dtype, shape, bytes }),
        ...(storage.more?.(rows, cols) ?? []),
        ...(isQuantized(c) ? quantization : []),
      ],
      node: [
        isQuantized(c)
          ? node(
              'DequantizeLinear',
              ['stored', 'scale', ...(zeroPoint ? ['zero'] : [])],
              ['v'],
              scales === 'tensor' ? {} : { axis: scales },
            )
          : node('Cast', ['stored'], ['v'], { to: dtypeCode('float32') }),
        ...storage.path,
        storage.layer,
      ],
      output: [{ name: 'y' }],
    },
    { irVersion: 10, opsetImport: [{ version: 21 }] },
  );
}

const open = (c: Case): Model => parseModel(encodeModel(build(c)));

function layerOf(m: Model) {
  const [layer] = findLinearLayers(new Graph(m.proto));
  expect(layer.skip).toBeUndefined();
  return layer.weight!;
}

const tensorOf = (m: Model, name: string) =>
  m.proto.graph!.initializer.find((t) => t.name === name)!;

/** The weight `[rows, cols]` as the runtime hands it to the layer. */
async function weightInRuntime(bytes: Uint8Array, { storage }: Case): Promise<number[]> {
  const { proto } = parseModel(bytes);
  proto.graph!.node = proto.graph!.node.slice(0, -1);
  proto.graph!.output = [{ name: 'w' }];
  const unused = Object.fromEntries(
    proto.graph!.input.map(({ name, type }) => [
      name,
      noiseTensor(type!.tensorType!.shape!.dim.map(() => 1)),
    ]),
  );
  const { w } = await runOnce(proto, unused);
  const values = Array.from(w.data, Number);
  if (storage.outFirst) return values;
  const [cols, rows] = w.dims;
  return Array.from(
    { length: rows * cols },
    (_, i) => values[(i % cols) * rows + Math.floor(i / cols)],
  );
}

const check = (property: (c: Case, seed: number) => Promise<void>, numRuns = 80) =>
  fc.assert(fc.asyncProperty(cases, fc.nat(), property), { numRuns });

test('readMatrix gives the weights that the runtime uses', () =>
  check(async (c) => {
    const m = open(c);
    const w = await readMatrix(m, layerOf(m));
    expect(Array.from(w)).toEqual(await weightInRuntime(encodeModel(m.proto), c));
  }));

test('readMatrix is right beyond one tile', async () => {
  const [rows, cols] = [130, 200];
  const bytes = new Uint8Array(Float32Array.from({ length: rows * cols }, (_, i) => i).buffer);
  const c: Case = {
    storage: storages[0],
    dtype: 'float32',
    rows,
    cols,
    scales: 'tensor',
    zeroPoint: false,
    bytes,
  };
  const m = open(c);
  const w = await readMatrix(m, layerOf(m));
  const expected = Float32Array.from(
    { length: rows * cols },
    (_, i) => (i % cols) * rows + Math.floor(i / cols),
  );
  expect(Buffer.from(w.buffer).equals(Buffer.from(expected.buffer))).toBe(true);
});

test('readMatrix does not hand out the model’s own bytes', async () => {
  const m = open({
    storage: storages[1],
    dtype: 'float32',
    rows: 1,
    cols: 2,
    scales: 'tensor',
    zeroPoint: false,
    bytes: new Uint8Array(8),
  });
  (await readMatrix(m, layerOf(m)))[0] = 1;
  expect(Array.from(await readMatrix(m, layerOf(m)))).toEqual([0, 0]);
});

test('maskEdit makes pruned weights exactly zero and changes no other bit', () =>
  check(async (c, seed) => {
    const m = open(c);
    const weight = layerOf(m);
    const before = await readMatrix(m, weight);
    const mask = Uint8Array.from(before, (_, i) => (Math.sin(i * 7.1 + seed) > 0 ? 1 : 0));
    m.edits.set(tensorOf(m, 'stored'), await maskEdit(m, weight, mask));
    const written = await serializeModel(m);

    const after = await weightInRuntime(written, c);
    expect(after).toEqual(Array.from(before, (v, i) => (mask[i] ? v : 0)));
    expect(after.some((v, i) => !mask[i] && Object.is(v, -0))).toBe(false);
    const reread = parseModel(written);
    const size = dtypeBits(c.dtype) / 8;
    const now = tensorOf(reread, 'stored').rawData!;
    let changed = 0;
    for (let i = 0; i < now.length; i += size)
      if (now.subarray(i, i + size).some((b, k) => b !== c.bytes[i + k])) changed++;
    expect(changed).toBeLessThanOrEqual(mask.reduce((n, keep) => n + 1 - keep, 0));
    for (const { name } of m.proto.graph!.initializer)
      if (name !== 'stored') expect(tensorOf(reread, name!)).toEqual(tensorOf(m, name!));
  }));

test('a mask that keeps everything changes no bit', () =>
  check(async (c) => {
    const m = open(c);
    const weight = layerOf(m);
    m.edits.set(
      tensorOf(m, 'stored'),
      await maskEdit(m, weight, new Uint8Array(weight.rows * weight.cols).fill(1)),
    );
    expect(await serializeModel(m)).toEqual(encodeModel(m.proto));
  }, 40));

test('replaceEdit with the values that are there changes no bit', () =>
  check(async (c) => {
    fc.pre(c.dtype !== 'float64'); // which is read as float32
    const m = open(c);
    const weight = layerOf(m);
    const values = await readMatrix(m, weight);
    fc.pre(!values.some(Number.isNaN)); // NaN comes in many bits
    m.edits.set(tensorOf(m, 'stored'), await replaceEdit(m, weight, values));
    expect(await serializeModel(m)).toEqual(encodeModel(m.proto));
  }));

test('replaceEdit stores new values, rounded to what the storage holds', () =>
  check(async (c, seed) => {
    const m = open(c);
    const weight = layerOf(m);
    // Small enough for the levels of any scale and zero point.
    const wanted = Float32Array.from({ length: weight.rows * weight.cols }, (_, i) =>
      Math.sin(i + seed),
    );
    m.edits.set(tensorOf(m, 'stored'), await replaceEdit(m, weight, wanted));
    const stored = await readMatrix(m, weight);
    const step = { float32: 0, float64: 0, float16: 2 ** -11, bfloat16: 2 ** -8 }[
      c.dtype as string
    ];
    if (step !== undefined) {
      for (const [i, v] of stored.entries())
        expect(Math.abs(v - wanted[i])).toBeLessThanOrEqual(step);
      return;
    }
    expect(await weightInRuntime(await serializeModel(m), c)).toEqual(Array.from(stored));
  }));

test('replaceEdit rounds to the nearest level and clips at the ends of the range', async () => {
  const c: Case = {
    storage: storages[1],
    dtype: 'int8',
    rows: 1,
    cols: 4,
    scales: 'tensor',
    zeroPoint: false,
    bytes: new Uint8Array(4),
  };
  const m = open(c); // scale 0.01
  const weight = layerOf(m);
  m.edits.set(
    tensorOf(m, 'stored'),
    await replaceEdit(m, weight, Float32Array.of(0.014, -0.016, 5, -5)),
  );
  const bytes = tensorOf(parseModel(await serializeModel(m)), 'stored').rawData!;
  expect([...new Int8Array(bytes.buffer, bytes.byteOffset, 4)]).toEqual([1, -2, 127, -128]);
});
