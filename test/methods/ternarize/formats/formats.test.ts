import { checkKernels } from '../../../../src/methods/ternarize/formats/check.js';
import { storeFloats } from '../../../../src/methods/ternarize/formats/float.js';
import type { CodedLayer, StoredCodes } from '../../../../src/methods/ternarize/formats/layers.js';
import { storePacked } from '../../../../src/methods/ternarize/formats/standard.js';
import { storeIntegers } from '../../../../src/methods/ternarize/formats/standard-int8.js';
import {
  type AttributeProto,
  AttributeType,
  type Model,
  type NodeProto,
  serializeModel,
  type TensorProto,
  tensorInfo,
} from '../../../../src/onnx/index.js';
import { floats, node } from '../../../support/protos.js';
import {
  float32,
  initializer,
  network,
  noise,
  opTypes,
  outputOf,
  stored,
} from '../../compress/formats/helpers.js';
import {
  always,
  archived,
  blocks2,
  blocks4,
  formats,
  matMul,
  product,
  relativeError,
  type Store,
  someCodes,
} from './helpers.js';

/** Sets an attribute of every MatMulNBits. */
function setAccuracy({ proto }: Model, level: number): void {
  for (const { opType, attribute } of proto.graph?.node ?? [])
    for (const a of opType === 'MatMulNBits' ? attribute : [])
      if (a.name === 'accuracy_level') a.i = level;
}

const kernels = async (model: Model, reports: StoredCodes[]) =>
  checkKernels(await serializeModel(model), reports);

const scalar = (name: string, f: number): AttributeProto => ({
  name,
  type: AttributeType.float,
  f,
});
const gemm = (inputs: string[], attribute: AttributeProto[], transB = 0): NodeProto => {
  const made = node('Gemm', inputs, ['y'], { transB });
  return { ...made, attribute: [...made.attribute, ...attribute] };
};
const sizes = [1, 7, 10, 17, 129].flatMap((rows) =>
  [20, 33, 130, 1000].map((cols) => ({ rows, cols })),
);

describe.each(formats)('%s', (name, { store, error, groups }) => {
  test('products of every size against float64', async () => {
    for (const { rows, cols } of sizes)
      for (const group of groups ? [32, 128, cols] : [cols]) {
        const ternary = { codes: someCodes(rows, cols, group), bias: noise(rows, 9) };
        const model = matMul(rows, cols, 17);
        const [report] = await store(model, always(ternary));
        expect(report).toMatchObject({ op: 'MatMul', status: 'changed', shape: [cols, rows] });
        expect(report.reason).toBeUndefined();
        const x = float32([17, cols]);
        const wanted = product(x.data as Float32Array, ternary);
        expect(relativeError(await outputOf(model, { x }, 'all'), wanted)).toBeLessThan(error);
        expect(relativeError(await outputOf(model, { x }), wanted)).toBeLessThan(error);
        if (!name.startsWith('ort')) continue;
        setAccuracy(model, 0);
        expect(relativeError(await outputOf(model, { x }), wanted)).toBeLessThan(6e-7);
      }
  });

  test('four levels', async () => {
    const ternary = { codes: someCodes(7, 130, groups ? 32 : 130, { low: -2 }) };
    expect(ternary.codes.codes).toContain(-2);
    const model = matMul(7, 130);
    await store(model, always(ternary));
    const x = float32([5, 130]);
    const wanted = product(x.data as Float32Array, ternary);
    expect(relativeError(await outputOf(model, { x }, 'all'), wanted)).toBeLessThan(error);
  });

  test('integers of 4 and 8 bits', async () => {
    for (const [bits, most] of [
      [4, 7],
      [8, 127],
    ] as const) {
      const { codes, ...rest } = someCodes(9, 130, groups ? 64 : 130);
      const wide = codes.map((_, i) => ((i * 37) % (2 * most + 1)) - most);
      const coded = { codes: { ...rest, codes: wide }, bits, bias: noise(9, 5) };
      const model = matMul(9, 130);
      await store(model, always(coded));
      const x = float32([5, 130]);
      const wanted = product(x.data as Float32Array, coded);
      for (const optimization of ['all', 'basic', 'disabled'] as const)
        expect(relativeError(await outputOf(model, { x }, optimization), wanted)).toBeLessThan(
          error,
        );
    }
  });

  test('activations with three axes, and with one', async () => {
    const ternary = { codes: someCodes(10, 64), bias: noise(10, 9) };
    for (const dims of [[2, 3, 64], [64]]) {
      const weights = [stored('w', [64, 10]), stored('b', [10])];
      const nodes = [node('MatMul', ['x', 'w'], ['h']), node('Add', ['b', 'h'], ['y'])];
      const model = network(nodes, weights, dims);
      await store(model, always(ternary));
      const x = float32(dims);
      const b = noise(10);
      const wanted = product(x.data as Float32Array, ternary, { more: (_, o) => b[o] });
      expect(relativeError(await outputOf(model, { x }, 'all'), wanted)).toBeLessThan(error);
    }
  });

  const codes = someCodes(10, 64);
  const b = noise(10, 4);
  const table = noise(50, 4);
  const added: [string, TensorProto[], (row: number, output: number) => number][] = [
    ['nothing', [], () => 0],
    ['a vector', [floats('c', [10], b)], (_, o) => b[o]],
    ['a row', [floats('c', [1, 10], b)], (_, o) => b[o]],
    ['one number', [floats('c', [1], b.slice(0, 1))], () => b[0]],
    ['a column', [floats('c', [5, 1], b.slice(0, 5))], (row) => b[row]],
    ['a matrix', [floats('c', [5, 10], table)], (row, o) => table[row * 10 + o]],
  ];
  test.each(added)('a Gemm that adds %s', async (_, c, add) => {
    for (const transB of [0, 1])
      for (const bias of [undefined, noise(10, 9)])
        for (const [alpha, beta] of [
          [1, 1],
          [0.5, -2],
        ]) {
          const inputs = ['x', 'w', ...c.map(({ name }) => name ?? '')];
          const nodes = [gemm(inputs, [scalar('alpha', alpha), scalar('beta', beta)], transB)];
          const w = stored('w', transB ? [10, 64] : [64, 10]);
          const model = network(nodes, [w, ...c], [5, 64]);
          await store(model, always({ codes, bias }));
          const x = float32([5, 64]);
          const more = (row: number, o: number) => beta * add(row, o);
          const wanted = product(x.data as Float32Array, { codes, bias }, { alpha, more });
          expect(relativeError(await outputOf(model, { x }, 'all'), wanted)).toBeLessThan(error);
        }
  });

  test('a Gemm that adds another activation', async () => {
    const nodes = [
      node('ReduceMean', ['x'], ['c'], { axes: [1], keepdims: 1 }),
      gemm(['x', 'w', 'c'], [scalar('beta', 3)]),
    ];
    const model = network(nodes, [stored('w', [64, 10])], [5, 64]);
    const bias = noise(10, 9);
    await store(model, always({ codes, bias }));
    const x = float32([5, 64]);
    const data = x.data as Float32Array;
    const mean = (row: number) =>
      data.subarray(row * 64, (row + 1) * 64).reduce((a, v) => a + v, 0) / 64;
    const wanted = product(data, { codes, bias }, { more: (row) => 3 * mean(row) });
    expect(relativeError(await outputOf(model, { x }, 'all'), wanted)).toBeLessThan(error);
  });

  test('a Gemm whose activations are transposed', async () => {
    const nodes = [
      node('Transpose', ['x'], ['t'], { perm: [1, 0] }),
      node('Gemm', ['t', 'w'], ['y'], { transA: 1 }),
    ];
    const model = network(nodes, [stored('w', [64, 10])], [5, 64]);
    await store(model, always({ codes }));
    const x = float32([5, 64]);
    const wanted = product(x.data as Float32Array, { codes });
    expect(relativeError(await outputOf(model, { x }, 'all'), wanted)).toBeLessThan(error);
  });

  test.each([
    { group: 1, biased: false },
    { group: 2, biased: true },
  ])('a convolution in $group groups is exact', async ({ group, biased }) => {
    const rows = 6;
    const cols = (4 / group) * 9;
    const ternary = { codes: someCodes(rows, cols, 9), bias: noise(rows, 9) };
    const inputs = biased ? ['x', 'w', 'b'] : ['x', 'w'];
    const build = () =>
      network(
        [node('Conv', inputs, ['y'], { group, pads: [1, 1, 1, 1] })],
        [stored('w', [rows, 4 / group, 3, 3]), stored('b', [rows])],
        [2, 4, 5, 5],
      );
    const model = build();
    const [report] = await store(model, always(ternary));
    expect(report).toMatchObject({ op: 'Conv', status: 'changed', kernel: 'float' });
    const x = float32([2, 4, 5, 5]);
    const wanted = convolution(x.data as Float32Array, ternary, group, biased);
    expect(relativeError(await outputOf(model, { x }, 'all'), wanted)).toBeLessThan(1e-5);
  });

  test('a weight that two layers read is stored once, with a bias for each', async () => {
    const nodes = [
      node('MatMul', ['x', 'w'], ['h'], {}, { name: 'first' }),
      node('MatMul', ['h', 'w'], ['y'], {}, { name: 'second' }),
    ];
    const model = network(nodes, [stored('w', [40, 40])], [3, 40]);
    const shared = someCodes(40, 40);
    const [one, two] = [noise(40, 6), noise(40, 7)];
    const reports = await store(model, ({ name }) => ({
      codes: { ...shared, codes: shared.codes.slice() },
      bias: name === 'first' ? one : two,
    }));
    const weights = (model.proto.graph?.initializer ?? []).filter(
      ({ rawData, name }) =>
        (rawData?.length ?? 0) >= 300 && !/^ternary_(table|digits)$/.test(name ?? ''),
    );
    expect(weights).toHaveLength(1);
    if (name !== 'float') expect(reports[1].bytes).toBe(0);
    const x = float32([3, 40]);
    const middle = product(x.data as Float32Array, { codes: shared, bias: one });
    const wanted = product(middle, { codes: shared, bias: two });
    expect(relativeError(await outputOf(model, { x }, 'all'), wanted)).toBeLessThan(error);
  });

  test('layers that are not chosen, or cannot be, stay', async () => {
    const nodes = [
      node('MatMul', ['x', 'w'], ['h'], {}, { name: 'first' }),
      node('MatMul', ['h', 'v'], ['y'], {}, { name: 'second' }),
    ];
    const model = network(nodes, [stored('w', [40, 40]), stored('v', [40, 8])], [3, 40]);
    const chosen = { codes: someCodes(40, 40) };
    const reports = await store(model, (layer) => (layer.name === 'first' ? chosen : undefined));
    expect(reports.map(({ status }) => status)).toEqual(['changed', 'unchanged']);
    expect(initializer(model, 'v').dims).toEqual([40, 8]);

    const transposed = network(
      [node('ConvTranspose', ['x', 'w'], ['y'])],
      [stored('w', [4, 3, 2, 2])],
      [1, 4, 3, 3],
    );
    const refuse = () => {
      throw new Error('asked for a layer that is skipped');
    };
    expect(await store(transposed, refuse)).toMatchObject([{ status: 'skipped' }]);
  });

  test('codes that do not fit their weight are a bug', async () => {
    await expect(store(matMul(7, 33), always({ codes: someCodes(33, 7) }))).rejects.toThrow(
      'do not fit',
    );
  });
});

/** A convolution 3x3 with a border of 1 on images [2, 4, 5, 5], with the stored bias if there is one. */
function convolution(
  x: Float32Array,
  { codes, bias }: CodedLayer,
  group: number,
  biased: boolean,
): number[] {
  const b = noise(codes.rows);
  const channels = 4 / group;
  const wanted: number[] = [];
  for (let n = 0; n < 2; n++)
    for (let o = 0; o < codes.rows; o++) {
      const from = Math.floor(o / (codes.rows / group)) * channels;
      for (let p = 0; p < 25; p++) {
        const patch = Float64Array.from({ length: codes.cols }, (_, k) => {
          const [c, row, col] = [
            Math.floor(k / 9),
            Math.floor(p / 5) + Math.floor((k % 9) / 3) - 1,
            (p % 5) + (k % 3) - 1,
          ];
          const inside = row >= 0 && row < 5 && col >= 0 && col < 5;
          return inside ? x[((n * 4 + from + c) * 5 + row) * 5 + col] : 0;
        });
        wanted.push(product(patch, { codes, bias })[o] + (biased ? b[o] : 0));
      }
    }
  return wanted;
}

describe('the graph', () => {
  const add = [node('MatMul', ['x', 'w'], ['h']), node('Add', ['h', 'b'], ['y'])];
  const weights = () => [stored('w', [256, 64]), stored('b', [64])];

  test('ort: one node with the bias in it, and nothing of the old weight', async () => {
    const model = network(add, weights(), ['batch', 256]);
    await blocks2(model, always({ codes: someCodes(64, 256, 128), bias: noise(64) }));
    expect(opTypes(model)).toEqual(['MatMulNBits']);
    expect(model.proto.graph?.initializer.map(({ dims }) => dims)).toEqual([
      [64, 2, 32],
      [64, 2],
      [64],
    ]);
    expect(model.proto.opsetImport).toMatchObject([
      { version: 13 },
      { domain: 'com.microsoft', version: 1 },
    ]);
    const attributes = model.proto.graph?.node[0].attribute.map(({ name, i }) => [name, Number(i)]);
    expect(Object.fromEntries(attributes ?? [])).toEqual({
      K: 256,
      N: 64,
      bits: 2,
      block_size: 128,
      accuracy_level: 4,
    });
  });

  test('an Add that is read elsewhere, or has a number for all outputs, stays', async () => {
    const nodes = [node('MatMul', ['x', 'w'], ['h']), node('Add', ['h', 'b'], ['y'])];
    for (const dims of [[1], [1, 1, 64]]) {
      const model = network(nodes, [stored('w', [256, 64]), stored('b', dims)], ['batch', 256]);
      await blocks2(model, always({ codes: someCodes(64, 256) }));
      expect(opTypes(model)).toContain('Add');
    }
  });

  test('blocks: as groups ask for, and no longer than rows', async () => {
    const block = async (cols: number, group: number) => {
      const model = matMul(7, cols);
      const [{ reason }] = await blocks2(model, always({ codes: someCodes(7, cols, group) }));
      const made = model.proto.graph?.node.find(({ opType }) => opType === 'MatMulNBits');
      return reason ?? Number(made?.attribute.find(({ name }) => name === 'block_size')?.i);
    };
    expect(await block(20, 128)).toBe(32);
    expect(await block(33, 128)).toBe(64);
    expect(await block(1000, 1000)).toBe(128);
    expect(await block(1000, 256)).toBe(128);
    expect(await block(1000, 192)).toBe(64);
    expect(await block(1000, 96)).toBe(32);
    expect(await block(1000, 100)).toBe('groups of 100 are not made of blocks of 32');
  });

  test('groups that are no blocks, and groups of several, are right too', async () => {
    for (const group of [100, 96, 192, 256]) {
      const ternary = { codes: someCodes(7, 1000, group) };
      const model = matMul(7, 1000);
      await blocks2(model, always(ternary));
      const x = float32([5, 1000]);
      const wanted = product(x.data as Float32Array, ternary);
      expect(relativeError(await outputOf(model, { x }, 'all'), wanted)).toBeLessThan(1e-2);
    }
  });

  test('standard-int8: layers that read one activation round it once', async () => {
    const nodes = [
      node('MatMul', ['x', 'w'], ['h']),
      node('MatMul', ['x', 'v'], ['k']),
      node('Add', ['h', 'k'], ['y']),
    ];
    const model = network(nodes, [stored('w', [64, 8]), stored('v', [64, 8], 3)], [2, 64]);
    const reports = await storeIntegers(model, always({ codes: someCodes(8, 64) }));
    const ops = opTypes(model);
    expect(ops.filter((op) => op === 'DynamicQuantizeLinear')).toHaveLength(1);
    expect(ops.filter((op) => op === 'MatMulInteger')).toHaveLength(2);
    expect(await kernels(model, reports)).toMatchObject([{ fast: true }, { fast: true }]);
  });

  test('standard-int8: with a scale for each group, floats', async () => {
    const model = matMul(8, 64);
    const reports = await storeIntegers(model, always({ codes: someCodes(8, 64, 32) }));
    expect(reports).toMatchObject([
      { kernel: 'float', reason: 'an output has more than one scale' },
    ]);
  });

  test.each([blocks2, storePacked, storeIntegers])('offsets have no place', async (store) => {
    const codes = { ...someCodes(8, 64), offsets: new Float32Array(8) };
    await expect(store(matMul(8, 64), always({ codes }))).rejects.toThrow('Asymmetric');
  });

  test('float: offsets are in the weights', async () => {
    const codes = { ...someCodes(1, 64), offsets: Float32Array.of(0.5) };
    const model = matMul(1, 64, 1);
    await storeFloats(model, always({ codes }));
    const x = float32([1, 64]);
    const data = x.data as Float32Array;
    const sum = data.reduce((a, v) => a + v, 0);
    const wanted = product(data, { codes })[0] + 0.5 * sum;
    expect((await outputOf(model, { x }))[0]).toBeCloseTo(wanted, 4);
  });

  test('an old opset comes to 13 or more', async () => {
    const model = network(add, weights(), [3, 256], 9);
    await storePacked(model, always({ codes: someCodes(64, 256) }));
    expect(Number(model.proto.opsetImport[0].version)).toBeGreaterThanOrEqual(13);
  });
});

describe('bits a weight', () => {
  const [rows, cols] = [512, 1024];
  test.each<[string, Store, number, number]>([
    ['ort', blocks2, 128, 2.25],
    ['ort', blocks2, 64, 2.5],
    ['ort', blocks2, cols, 2.25],
    ['ort, packed trits', archived, 128, 205 / 128 + 0.25],
    ['ort4', blocks4, 128, 4.25],
    ['standard', storePacked, 128, 1.6 + 0.25],
    ['standard', storePacked, cols, 1.6 + 32 / cols],
    ['standard-int8', storeIntegers, cols, 1.6 + 32 / cols],
  ])('%s, %p', async (_, store, group, bits) => {
    const model = matMul(rows, cols);
    const [report] = await store(model, always({ codes: someCodes(rows, cols, group) }));
    expect((8 * (report.bytes ?? 0)) / (rows * cols)).toBeCloseTo(bits, 3);
    // The table of trits, shapes and names are the same for any size of weight.
    const file = await serializeModel(model);
    expect(file.length - (report.bytes ?? 0)).toBeLessThan(3500);
  });
});

describe('codes of more bits', () => {
  const coded = (bits: 2 | 4 | 8): CodedLayer => {
    const codes = someCodes(8, 128);
    const least = -(2 ** (bits - 1));
    const wide = codes.codes.map((_, i) => (i % 2 ? least : -least - 1));
    return { codes: { ...codes, codes: wide }, bits };
  };

  test.each<[string, Store, number[]]>([
    ['ort', blocks2, [2, 4, 8]],
    ['ort, packed trits', archived, [2, 4, 8]],
    ['ort4', blocks4, [4, 4, 8]],
  ])('%s: the more of theirs and of the format', async (_, store, stored) => {
    for (const [i, bits] of ([2, 4, 8] as const).entries()) {
      const model = matMul(8, 128);
      const [report] = await store(model, always(coded(bits)));
      const [{ attribute }] = model.proto.graph?.node ?? [];
      expect(Number(attribute.find(({ name }) => name === 'bits')?.i)).toBe(stored[i]);
      expect(report.bytes).toBe((8 * 128 * stored[i]) / 8 + 4 * 8);
      const x = float32([5, 128]);
      const wanted = product(x.data as Float32Array, coded(bits));
      expect(relativeError(await outputOf(model, { x }, 'all'), wanted)).toBeLessThan(1e-2);
    }
  });

  test.each([storePacked, storeIntegers])(
    'eight are int8 in the file, without a table',
    async (store) => {
      const model = matMul(8, 128);
      const reports = await store(model, always(coded(8)));
      const { initializer = [], node: nodes = [] } = model.proto.graph ?? {};
      const types = initializer.map((t) => [tensorInfo(t).dtype, tensorInfo(t).elements]);
      expect(types).toContainEqual(['int8', 8 * 128]);
      expect(nodes.map(({ opType }) => opType)).not.toContain('Gather');
      expect(reports[0].bytes).toBe(8 * 128 + 4 * 8);
      expect(await kernels(model, reports)).toMatchObject([{ fast: true }]);
      const x = float32([5, 128]);
      const wanted = product(x.data as Float32Array, coded(8));
      expect(relativeError(await outputOf(model, { x }, 'all'), wanted)).toBeLessThan(1e-2);
    },
  );
});

describe('kernels', () => {
  /** Products of every kind between activations of every kind. */
  const chain = (): Model => {
    const nodes: NodeProto[] = [];
    const weights: TensorProto[] = [];
    const ops = ['Relu', 'Sigmoid', 'LeakyRelu', 'Tanh', 'Clip'];
    let x = 'x';
    for (const [i, op] of ops.entries()) {
      const transB = i % 2;
      nodes.push(
        i < 3
          ? node('MatMul', [x, `w${i}`], [`h${i}`], {}, { name: `layer${i}` })
          : node('Gemm', [x, `w${i}`], [`h${i}`], { transB }, { name: `layer${i}` }),
        node('Add', [`h${i}`, `b${i}`], [`s${i}`]),
        node(op, [`s${i}`], [i === ops.length - 1 ? 'y' : `a${i}`]),
      );
      weights.push(stored(`w${i}`, [129, 129], i + 1), stored(`b${i}`, [129], i + 9));
      x = `a${i}`;
    }
    return network(nodes, weights, [2, 129]);
  };
  const ternary = { codes: someCodes(129, 129), bias: noise(129) };

  test.each<[string, Store]>([
    ['MatMulNBits', blocks2],
    ['MatMulNBits', archived],
    ['MatMulNBits', blocks4],
    ['float', storePacked],
    ['MatMulInteger', storeIntegers],
  ])('%s is taken in every layer', async (kernel, store) => {
    const model = chain();
    const reports = await store(model, always(ternary));
    expect(reports.map((r) => r.kernel)).toEqual(new Array(5).fill(kernel));
    const found = await kernels(model, reports);
    expect(found.map(({ name }) => name)).toEqual([0, 1, 2, 3, 4].map((i) => `layer${i}`));
    for (const { fast, reason, ops } of found) {
      expect(reason).toBeUndefined();
      expect(fast).toBe(true);
      expect(ops).toHaveLength(1);
    }
  });

  test('convolutions are folded', async () => {
    const model = network(
      [
        node('Conv', ['x', 'w'], ['h'], { pads: [1, 1, 1, 1] }),
        node('Relu', ['h'], ['r']),
        node('Conv', ['r', 'v'], ['y']),
      ],
      [stored('w', [16, 16, 3, 3]), stored('v', [16, 16, 3, 3], 3)],
      [1, 16, 8, 8],
    );
    const reports = await blocks2(model, always({ codes: someCodes(16, 144, 100) }));
    expect(await kernels(model, reports)).toMatchObject([{ fast: true }, { fast: true }]);
  });

  test('what is slow is told', async () => {
    const slow = chain();
    const reports = await blocks2(slow, always(ternary));
    setAccuracy(slow, 0);
    expect(await kernels(slow, reports)).toMatchObject(
      new Array(5).fill({ fast: false, reason: 'its weights become floats in each run' }),
    );
    for (const store of [storePacked, storeIntegers]) {
      const model = chain();
      const stored = await store(model, always(ternary));
      const found = await checkKernels(await serializeModel(model), stored, {
        optimization: 'disabled',
      });
      expect(found).toMatchObject(
        new Array(5).fill({ fast: false, reason: 'its weights are unpacked in each run' }),
      );
    }
  });
});
