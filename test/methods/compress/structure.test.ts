import { Graph } from '../../../src/graph/graph.js';
import { weightLayers } from '../../../src/graph/weight-layers.js';
import { Workspace } from '../../../src/graph/workspace.js';
import { refuseQuantized } from '../../../src/methods/compress/formats/refuse-quantized.js';
import { readNetwork } from '../../../src/methods/compress/network.js';
import { parameters } from '../../../src/methods/compress/parameters.js';
import { planCompression } from '../../../src/methods/compress/plan.js';
import { encodeModel, type ModelProto, parseModel } from '../../../src/onnx/index.js';
import { distance } from '../../support/run.js';
import {
  type Compressed,
  compressed,
  described,
  dimsOf,
  type Given,
  outputsOf,
  parameterCount,
} from './support.js';
import { member, zoo } from './zoo.js';

const names = Object.keys(zoo);
const methods = ['gauss', 'udfc', 'neuron-merging', 'drop'] as const;

/** Runs the same with and without optimisations, in the shapes that it was described to have. */
async function expectSound(source: ModelProto, proto: ModelProto, tolerance = 1e-4): Promise<void> {
  const [before, plain] = [await outputsOf(source), await outputsOf(proto)];
  const optimized = await outputsOf(proto, { optimize: true });
  expect(Object.keys(plain)).toEqual(Object.keys(before));
  for (const [name, output] of Object.entries(plain)) {
    expect(output.dims).toEqual(before[name].dims);
    expect(Array.from(output.data, Number).every(Number.isFinite)).toBe(true);
    expect(distance(output, optimized[name])).toBeLessThan(tolerance);
  }
  const described = proto.graph!.valueInfo.map(({ name = '' }) => name);
  const runtime = await dimsOf(proto, described);
  const declared = proto.graph!.valueInfo.map(({ name = '', type }) => [
    name,
    type?.tensorType?.shape?.dim.map((d) => Number(d.dimValue)),
  ]);
  expect(declared).toEqual(described.map((name) => [name, runtime.get(name)]));
}

/** Every tensor of a group has lost as many channels, and the report says how many. */
async function expectAlike(
  source: ModelProto,
  { proto, surgery }: Compressed,
  cut: number,
): Promise<void> {
  const { groups, found } = await readNetwork(parseModel(encodeModel(source)));
  const all = groups.flatMap(({ tensors }) => tensors.map(({ name }) => name));
  const lengths = await dimsOf(proto, all);
  const reported = new Map(surgery.layers.map((layer) => [layer.name, layer.channels]));
  let changed = 0;
  for (const group of groups) {
    const [producer] = group.producers;
    const first = found.layers.find(({ node }) => node === producer.node)!;
    const { before, after } = reported.get(first.name)!;
    expect(before).toBe(producer.channels.length);
    if (after < before) changed++;
    else expect(group.skip).toBeDefined();
    for (const { name } of found.layers.filter(({ node }) =>
      group.producers.some((p) => p.node === node),
    ))
      expect([name, reported.get(name)]).toEqual([name, { before, after }]);
    for (const { name, axis, channels } of group.tensors) {
      const whole = !channels.includes(-1) && new Set(channels).size === group.channels;
      if (whole)
        expect([name, lengths.get(name)?.[axis]]).toEqual([
          name,
          (after * channels.length) / before,
        ]);
    }
  }
  expect(changed).toBeGreaterThanOrEqual(cut);
}

/** Weights and biases are as large as reported. */
function expectBytes(source: ModelProto, { proto, surgery }: Compressed): void {
  const [before, after] = [source, proto].map(
    (of) => weightLayers(new Workspace(parseModel(encodeModel(of)))).layers,
  );
  expect(after).toHaveLength(before.length);
  for (const [i, { name, op }] of before.entries()) {
    const { node, shape } = after[i];
    const { bytes } = surgery.layers.find((layer) => layer.name === name)!;
    // The bias of a MatMul is that of the Add behind it.
    const bias = op !== 'MatMul' && node.input[2] ? biasLength(proto, node.input[2]) : 0;
    const elements = shape.reduce((a, b) => a * b, 1) + bias;
    if (op !== 'MatMul') expect([name, bytes?.after]).toEqual([name, 4 * elements]);
  }
}

function biasLength(proto: ModelProto, name: string): number {
  const value = new Graph(proto).root.values.get(name);
  const constant = value?.producer?.attribute.find(({ t }) => t)?.t;
  return Number((value?.initializer ?? constant)?.dims?.[0] ?? 0);
}

describe.each(names)('%s', (name) => {
  test.each(methods)('%s: a whole model, smaller alike in all of a group', async (method) => {
    const source = await described(member(name));
    const made = await compressed(source, { ratio: 0.5, method });
    await expectSound(source, made.proto);
    await expectAlike(source, made, 2);
    expectBytes(source, made);
    expect(parameterCount(made.proto)).toBeLessThan(0.6 * parameterCount(source));
    expect(made.surgery.macs!.after).toBeLessThan(0.8 * made.surgery.macs!.before);
  });

  test('what a plan tells is what is done', async () => {
    const source = member(name);
    for (const given of [{ ratio: 0.3 }, { ratio: 0.3, bits: 8, align: 4 }] satisfies Given[]) {
      const { surgery } = await compressed(source, given);
      const parsed = parameters.parse({ align: 1, ...given });
      const model = parseModel(encodeModel(source));
      const planned = await planCompression(model, parsed, () => true);
      // What lost no channel of its own or of its input is changed where its bias makes up for others.
      const told = (layers: typeof planned) =>
        layers.map(({ name, channels, bits, kept }) => ({ name, channels, bits, kept }));
      expect(told(surgery.layers)).toEqual(told(planned));
    }
  });

  test.each(['qdq', 'weight-only', 'float'] as const)('%s, with fewer channels', async (format) => {
    const source = await described(member(name));
    const { proto } = await compressed(source, { ratio: 0.25, bits: 8, format });
    // Where kernels compute in integers a sum may fall to either side of a rounding boundary, and the
    // runtime has integer kernels for matrices that are dequantized, too.
    await expectSound(source, proto, { qdq: 0.1, 'weight-only': 0.03, float: 1e-4 }[format]);
    if (format === 'float') expect(() => refuseQuantized(proto)).not.toThrow();
    else expect(() => refuseQuantized(proto)).toThrow(/quantised already/);
  });
});
