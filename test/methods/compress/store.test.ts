import { readNetwork } from '../../../src/methods/compress/network.js';
import { roundFilters } from '../../../src/methods/compress/rounding.js';
import { encodeModel, type ModelProto, parseModel } from '../../../src/onnx/index.js';
import { network } from '../../graph/channels/models.js';
import { distance } from '../../support/run.js';
import { compressed, type Given, outputsOf, randomized, valuesOf } from './support.js';
import { member } from './zoo.js';

/** Two products without biases: rounding gives the second one, whose inputs have a mean. */
const products = (): ModelProto =>
  randomized(
    network(
      (n) =>
        n.op('MatMul', [
          n.op('Relu', [n.op('MatMul', ['x', n.weight([6, 40])])]),
          n.weight([40, 3]),
        ]),
      [4, 6],
    ),
    3,
  );

test.each([2, 3, 4, 8])('%d bits: weights are rounded once', async (bits) => {
  const source = products();
  const given = { bits, edgeBits: 2, method: 'udfc', format: 'float' } as const;
  const repaired = { ...given, method: 'gauss' } as const;
  const plain = await compressed(source, given);
  const shifted = await compressed(source, repaired);
  expect(shifted.proto.graph!.node.filter(({ opType }) => opType === 'Add')).toHaveLength(1);
  const weights = await valuesOf(source, 'w0');
  const transposed = Float64Array.from(
    weights,
    (_, i) => weights[(i % 6) * 40 + Math.floor(i / 6)],
  );
  const filters = { weights: transposed, outputs: 40, inputs: 6, kernel: [], groups: 1 };
  const { filters: rounded } = roundFilters(filters, { bits, granularity: 'channel' });
  const want = weights.map((_, i) => rounded.weights[(i % 40) * 6 + Math.floor(i / 40)]);
  expect(await valuesOf(plain.proto, 'w0')).toEqual(want);
  if (bits > 3) expect(await valuesOf(shifted.proto, 'w0')).toEqual(want);
  // The same codes, stored as such.
  const stored = await compressed(source, { ...repaired, format: 'weight-only' });
  const [a, b] = [await outputsOf(shifted.proto), await outputsOf(stored.proto)];
  for (const name of Object.keys(a)) expect(distance(a[name], b[name])).toBeLessThan(1e-6);
});

test('bits of one layer, though another shares its weight', async () => {
  const source = member('shared weights');
  const { found } = await readNetwork(parseModel(encodeModel(source)));
  const names = found.layers.map(({ name }) => name);
  expect(names).toContain('w6#2');
  const given: Given = { bits: 8, layerBits: ['w6#2=4', 'w15=5'], format: 'weight-only' };
  const { surgery } = await compressed(source, given);
  const bits = Object.fromEntries(surgery.layers.map((layer) => [layer.name, layer.bits]));
  expect(bits).toMatchObject({ w6: 8, 'w6#2': 4, w15: 5, 'w15#2': 8 });
  const bytes = Object.fromEntries(surgery.layers.map((layer) => [layer.name, layer.bytes?.after]));
  expect(bytes['w6#2']).toBeLessThan(0.7 * bytes.w6!);
});

test('a format is for what is rounded: the rest of the model stays as it is', async () => {
  const source = member('ResNet, basic blocks');
  const { proto } = await compressed(source, { ratio: 0.5, format: 'qdq' });
  expect(proto.opsetImport).toEqual(source.opsetImport);
  expect(proto.graph!.node.map(({ opType }) => opType)).toEqual(
    source.graph!.node.map(({ opType }) => opType),
  );
});
