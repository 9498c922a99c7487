import { equalizeLayers } from '../../../src/methods/compress/equalize-layers.js';
import { compress } from '../../../src/methods/compress/method.js';
import { readNetwork } from '../../../src/methods/compress/network.js';
import { measureErrors } from '../../../src/methods/compress/statistics/measured-error.js';
import { encodeModel, type ModelProto, parseModel } from '../../../src/onnx/index.js';
import { operate } from '../../../src/recipe/operation.js';
import { network } from '../../graph/channels/models.js';
import { outcomeOf, scratchFolder } from '../../support/cli.js';
import { resnet8 } from '../../support/fixtures.js';
import { gaussianSamples, partOf } from './statistics/support.js';
import { apart, edited, randomized, valuesOf } from './support.js';

const folder = scratchFolder();

/** Two convolutions and a product, one behind the other, without normalizations. */
const chain = (): ModelProto =>
  randomized(
    network(
      (n) => {
        const conv = (x: string, shape: number[]) =>
          n.op('Relu', [n.op('Conv', [x, n.weight(shape), n.weight([shape[0]])])]);
        const pooled = n.op('GlobalAveragePool', [conv(conv('x', [6, 3, 3, 3]), [8, 6, 3, 3])]);
        return n.op('Gemm', [n.op('Flatten', [pooled]), n.weight([8, 4])]);
      },
      [2, 3, 8, 8],
    ),
    4,
  );

test('equalized layers compute the same, from weights of equal ranges', async () => {
  const source = chain();
  const equalized = await equalizeLayers(await readNetwork(parseModel(encodeModel(source))));
  expect(await apart(source, equalized!.proto)).toBeLessThan(1e-5);
  // The second of three: rows by columns of the last, columns by rows of the first.
  const last = await valuesOf(equalized!.proto, 'w4');
  const middle = await valuesOf(equalized!.proto, 'w2');
  const largest = (values: ArrayLike<number>) =>
    Array.from(values).reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  for (let channel = 0; channel < 8; channel++) {
    const read = largest(last.subarray(channel * 4, (channel + 1) * 4));
    expect(largest(middle.subarray(channel * 54, (channel + 1) * 54)) / read).toBeCloseTo(1, 4);
  }
});

test('errors are measured against the original', async () => {
  const source = chain();
  const part = partOf(parseModel(encodeModel(source)), gaussianSamples('x', 4, [3, 8, 8]));
  const doubled = await edited(source, (name, values) => {
    if (name === 'w0' || name === 'w1') for (const [i, w] of values.entries()) values[i] = 2 * w;
  });
  const values = ['conv0', 'relu1', 'conv2'].map((name, i) => {
    return { name, axis: 1, kept: Uint32Array.from({ length: i < 2 ? 6 : 8 }, (_, k) => k) };
  });
  const same = await measureErrors(part, parseModel(encodeModel(source)), values);
  expect([...same.values()]).toEqual([0, 0, 0]);
  const errors = await measureErrors(part, parseModel(encodeModel(doubled)), values);
  expect(errors.get('conv0')).toBeCloseTo(1, 5);
  expect(errors.get('relu1')).toBeCloseTo(1, 5);
  expect(errors.get('conv2')).toBeGreaterThan(0.1);
});

describe('bits by layer', () => {
  const request = {
    method: compress,
    model: resnet8.model,
    output: `${folder}/out.onnx`,
    force: true,
    threads: 1,
  };

  test('as few as the loss allows', async () => {
    const few = (drop: number) =>
      operate({
        ...request,
        parameters: { bits: 'auto', format: 'float' },
        eval: resnet8.test,
        gates: { maxDrop: [`accuracy=${drop}`] },
      });
    const bits = (result: Awaited<ReturnType<typeof few>>) =>
      result.layers.map((layer) => ('bits' in layer ? Number(layer.bits) : 32));
    const [strict, loose] = [await few(0.002), await few(0.03)];
    const sum = (all: number[]) => all.reduce((a, b) => a + b, 0);
    for (const { gates, notes } of [strict, loose]) {
      expect(gates.every(({ passed }) => passed)).toBe(true);
      expect(notes[0]).toMatch(/^Bits were chosen in \d+ trials? on the evaluation data/);
    }
    expect(sum(bits(loose))).toBeLessThan(sum(bits(strict)));
    expect(sum(bits(strict))).toBeLessThan(10 * 16);
    // First and last.
    expect([bits(loose)[0], bits(loose)[9]]).toEqual([8, 8]);
    expect(new Set(bits(loose)).size).toBeGreaterThan(2);
  }, 60_000);

  test('refused without an allowance, or without data', async () => {
    const run = (more: object) =>
      outcomeOf(() => operate({ ...request, parameters: { bits: 'auto' }, ...more }));
    expect(await run({ eval: resnet8.test })).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('--max-drop'),
    });
    expect(await run({ gates: { maxDrop: ['cosine=0.01'] } })).toMatchObject({ code: 2 });
    const unknown = { eval: resnet8.test, gates: { maxDrop: ['perplexity=1'] } };
    expect(await run(unknown)).toMatchObject({ code: 2 });
  });
});
