import { normal, uniform } from '../../../../src/data/index.js';
import { uint8Grid } from '../../../../src/methods/compress/formats/activation-ranges.js';
import { rangesFromBatchNorm } from '../../../../src/methods/compress/formats/batch-norm-ranges.js';
import { Histogram } from '../../../../src/methods/compress/formats/histogram.js';
import { measureRanges } from '../../../../src/methods/compress/formats/measured-ranges.js';
import { readModel } from '../../../../src/onnx/index.js';
import type { Feeds } from '../../../../src/runtime/session.js';
import { resnet8 } from '../../../support/fixtures.js';
import { floats, node } from '../../../support/protos.js';
import { float32, imageRanges, images, network, normInputs, stored, valuesOf } from './helpers.js';

describe('uint8 grid', () => {
  test.each([
    [0, 6, 0],
    [-1, 3, 64],
    [-3, 0, 255],
    [2, 5, 0],
    [-5, -2, 255],
    [0, 0, 0],
  ])('of [%d, %d] has zero at code %d', (min, max, zero) => {
    const { scale, zeroPoint } = uint8Grid({ min, max });
    expect(zeroPoint).toBe(zero);
    expect(Math.fround(scale)).toBe(scale);
    const [low, high] = [-zeroPoint * scale, (255 - zeroPoint) * scale];
    expect(low).toBeLessThanOrEqual(Math.min(0, min) + scale);
    expect(high).toBeGreaterThanOrEqual(Math.max(0, max) - scale);
  });

  test('of the narrowest range is finite', () => {
    expect(uint8Grid({ min: 0, max: 1e-44 }).scale).toBeGreaterThan(0);
  });
});

describe('from BatchNormalization', () => {
  const vector = (name: string, ...values: number[]) =>
    floats(name, [values.length], Float32Array.from(values));
  const norm = (x: string, y: string, prefix: string) =>
    node('BatchNormalization', normInputs(x, prefix), [y]);
  const parameters = (prefix: string, gamma: number[], beta: number[]) => [
    vector(`${prefix}.0`, ...gamma),
    vector(`${prefix}.1`, ...beta),
    vector(`${prefix}.2`, 0, 0),
    vector(`${prefix}.3`, 1, 1),
  ];

  test('what becomes of β ± κ|γ|', async () => {
    const model = network(
      [
        node('Conv', ['x', 'w'], ['z']),
        norm('z', 'a', 'n1'),
        node('Relu', ['a'], ['r']),
        node('Clip', ['a', 'low', 'high'], ['c']),
        node('Conv', ['x', 'w'], ['z2']),
        norm('z2', 'b', 'n2'),
        node('Add', ['r', 'b'], ['sum']),
        node('Concat', ['r', 'b'], ['both'], { axis: 1 }),
        node('GlobalAveragePool', ['both'], ['g']),
        node('Sigmoid', ['g'], ['gate']),
        node('Mul', ['both', 'gate'], ['gated']),
        node('Mul', ['b', 'perChannel'], ['scaled']),
        node('Conv', ['sum', 'w2'], ['unknown']),
        node('Relu', ['unknown'], ['y']),
      ],
      [
        stored('w', [2, 3, 1, 1]),
        stored('w2', [2, 2, 1, 1]),
        ...parameters('n1', [1, -2], [0.5, -1]),
        ...parameters('n2', [0.5, 1], [3, 0]),
        floats('low', [], Float32Array.of(0)),
        floats('high', [], Float32Array.of(6)),
        floats('perChannel', [2, 1, 1], Float32Array.of(10, -1)),
      ],
      [1, 3, 4, 4],
    );
    const inputs = new Map([['x', { min: 0, max: 1 }]]);
    const ranges = await rangesFromBatchNorm(model, { kappa: 4, inputs });
    expect(ranges.get('x')).toEqual({ min: 0, max: 1 });
    expect(ranges.get('a')).toEqual({ min: -9, max: 7 });
    expect(ranges.get('r')).toEqual({ min: 0, max: 7 });
    expect(ranges.get('c')).toEqual({ min: 0, max: 6 });
    expect(ranges.get('b')).toEqual({ min: -4, max: 5 });
    expect(ranges.get('both')).toEqual({ min: -4, max: 7 });
    expect(ranges.get('g')).toEqual({ min: -4, max: 7 });
    expect(ranges.get('gate')).toEqual({ min: 0, max: 1 });
    expect(ranges.get('gated')).toEqual({ min: -4, max: 7 });
    expect(ranges.get('scaled')).toEqual({ min: -4, max: 50 });
    // Wider than either term, narrower than both together; channel by channel.
    const { min, max } = ranges.get('sum') ?? { min: 0, max: 0 };
    expect(max).toBeGreaterThan(7);
    expect(max).toBeLessThan(7 + 4);
    expect(min).toBeLessThan(-2.5);
    expect(min).toBeGreaterThan(-4);
    expect(ranges.has('unknown')).toBe(false);
    expect(ranges.has('y')).toBe(false);
  });

  test('holds nearly all of what resnet8 sees, and not much more', async () => {
    const model = await readModel(resnet8.model);
    const assumed = await imageRanges(await readModel(resnet8.model));
    const seen = await measureRanges(model, () => feedsOnly('image'));
    let compared = 0;
    for (const [name, { min, max }] of seen) {
      const range = assumed.get(name);
      if (!range || name === 'image') continue;
      compared++;
      expect(range.max).toBeGreaterThan(0.45 * max);
      expect(range.max).toBeLessThan(4 * max);
      expect(range.min).toBeGreaterThan(4 * min - 1e-6);
    }
    expect(compared).toBe(21);
  });
});

async function* feedsOnly(input: string, count = 200): AsyncGenerator<Feeds> {
  for await (const { feeds } of images(input, count)) yield feeds;
}

describe('measured', () => {
  const build = () =>
    network(
      [
        node('Conv', ['x', 'w'], ['c']),
        node('Relu', ['c'], ['r']),
        node('MaxPool', ['r'], ['y'], { kernel_shape: [2, 2] }),
      ],
      [stored('w', [4, 3, 1, 1])],
      ['n', 3, 6, 6],
    );
  const runs: Feeds[] = [1, 2, 3].map((seed) => ({ x: float32([2, 3, 6, 6], seed) }));

  test('least and largest over all runs, of inputs too', async () => {
    const ranges = await measureRanges(build(), () => runs);
    expect([...ranges.keys()].sort()).toEqual(['c', 'r', 'x', 'y']);
    const all = { c: [] as number[], x: [] as number[] };
    for (const feeds of runs) {
      all.c.push(...Array.from((await valuesOf(build(), feeds, ['c'])).c.data, Number));
      all.x.push(...Array.from(feeds.x.data, Number));
    }
    for (const name of ['c', 'x'] as const) {
      expect(ranges.get(name)?.min).toBeCloseTo(Math.min(...all[name]), 5);
      expect(ranges.get(name)?.max).toBeCloseTo(Math.max(...all[name]), 5);
    }
    expect(ranges.get('r')?.min).toBe(0);
  });

  test('the model is as before', async () => {
    const model = build();
    const before = JSON.stringify(model.proto.graph?.node);
    await measureRanges(model, () => runs);
    expect(JSON.stringify(model.proto.graph?.node)).toBe(before);
    expect(model.proto.graph?.output.map(({ name }) => name)).toEqual(['y']);
  });

  test.each([{ kind: 'percentile', outside: 0.1 } as const, { kind: 'least-squares' } as const])(
    '$kind lies within',
    async (rule) => {
      const whole = await measureRanges(build(), () => runs);
      const ranges = await measureRanges(build(), () => runs, { rule });
      expect([...ranges.keys()]).toEqual([...whole.keys()]);
      for (const [name, { min, max }] of ranges) {
        expect(min).toBeGreaterThanOrEqual(Math.min(0, whole.get(name)?.min ?? 0));
        expect(max).toBeLessThanOrEqual(whole.get(name)?.max ?? 0);
      }
      if (rule.kind === 'percentile')
        expect(ranges.get('c')?.max).toBeLessThan(whole.get('c')?.max ?? 0);
    },
  );

  test('what is not finite has no range', async () => {
    const broken = float32([1, 3, 6, 6]);
    broken.data[0] = Number.NaN;
    const ranges = await measureRanges(build(), () => [...runs, { x: broken }]);
    expect(ranges.has('c')).toBe(false);
  });
});

describe('histogram', () => {
  const gauss = normal(uniform(7));
  const values = Float32Array.from({ length: 100_000 }, () => gauss());

  test('percentiles of a normal distribution', () => {
    const histogram = new Histogram({ min: -6, max: 6 });
    histogram.add(values);
    const { min, max } = histogram.percentile(0.05);
    expect(min).toBeCloseTo(-1.96, 1);
    expect(max).toBeCloseTo(1.96, 1);
    expect(histogram.percentile(0)).toEqual({
      min: expect.closeTo(Math.min(...values), 1),
      max: expect.closeTo(Math.max(...values), 1),
    });
  });

  test('the least squared error cuts a lonely outlier off', () => {
    const histogram = new Histogram({ min: -6, max: 60 });
    histogram.add(values);
    histogram.add(Float32Array.of(60));
    expect(histogram.leastSquares().max).toBeLessThan(55);
    const even = new Histogram({ min: 0, max: 255 });
    even.add(Float32Array.from({ length: 256 }, (_, i) => i));
    expect(even.leastSquares()).toEqual({ min: 0, max: 255 });
  });

  test('of nothing, and of a single value', () => {
    const none = new Histogram({ min: 0, max: 0 });
    none.add(new Float32Array(10));
    expect(none.percentile(0.1)).toEqual({ min: 0, max: 0 });
    expect(none.leastSquares()).toEqual({ min: 0, max: 0 });
  });
});
