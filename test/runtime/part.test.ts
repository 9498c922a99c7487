import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Graph } from '../../src/graph/graph.js';
import { findLinearLayers } from '../../src/graph/linear-layers.js';
import { extractPart } from '../../src/graph/segments.js';
import {
  allTensors,
  encodeModel,
  type Model,
  parseModel,
  readModel,
  serializeModel,
  type TensorProto,
} from '../../src/onnx/index.js';
import { openPart } from '../../src/runtime/part.js';
import { withSession } from '../../src/runtime/session.js';
import { noise } from '../graph/helpers.js';
import { inRepository } from '../support/cli.js';
import { model, node, value, weight } from '../support/protos.js';
import { variants } from '../support/variants.js';

const folder = mkdtempSync(join(tmpdir(), 'resect-part-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const image = { dtype: 'float32' as const, dims: [1, 1, 28, 28], data: noise(28 * 28) };

/** Logits of a part of a model, in a session of the part. */
async function logits(m: Model, proto = m.proto): Promise<number[]> {
  const { bytes, folder: beside } = await openPart(m, proto);
  const outputs = await withSession(bytes, { threads: 1, folder: beside }, (session) =>
    session.run({ image }),
  );
  return Array.from(outputs.logits.data, Number);
}

const plain = (bytes: Uint8Array | string) =>
  withSession(bytes, { threads: 1 }, async (session) => {
    const { logits: found } = await session.run({ image });
    return Array.from(found.data, Number);
  });

const halve = (raw: Uint8Array) => {
  const values = new Float32Array(raw.slice().buffer).map((v) => v / 2);
  return new Uint8Array(values.buffer);
};

const path = inRepository('fixtures/resnet8/resnet8.onnx');
const fcWeight = (m: Model): TensorProto => {
  const layers = findLinearLayers(new Graph(m.proto));
  return layers.at(-1)!.weight!.view.tensor;
};

describe('a part', () => {
  test('of a file refers to the file for large weights, and is small', async () => {
    const m = await readModel(path);
    const { bytes } = await openPart(m, m.proto);
    expect(bytes.length).toBeLessThan(40_000);
    expect(m.sizeBytes).toBeGreaterThan(300_000);
    expect(await logits(m)).toEqual(await plain(path));
  });

  test('of bytes without a file has the weights inside', async () => {
    const m = parseModel(encodeModel((await readModel(path)).proto));
    const { bytes, folder: beside } = await openPart(m, m.proto);
    expect(beside).toBeUndefined();
    expect(bytes.length).toBeGreaterThan(300_000);
    expect(await logits(m)).toEqual(await plain(path));
  });

  test.each([
    ['of a file', () => readModel(path)],
    ['of bytes', async () => parseModel(encodeModel((await readModel(path)).proto))],
  ])('%s has edits applied', async (_, open) => {
    const m = await open();
    m.edits.set(fcWeight(m), halve);
    const edited = await logits(m);
    expect(edited).toEqual(await plain(await serializeModel(m)));
    expect(edited).not.toEqual(await plain(path));
    m.edits.clear();
    expect(await logits(m)).toEqual(await plain(path));
  });

  test.each(variants.filter(({ name }) => !/function/.test(name)))(
    'of the variant: $name',
    async (variant) => {
      const file = variant.write(mkdtempSync(join(folder, 'variant-')));
      const m = await readModel(file);
      expect(await logits(m)).toEqual(await plain(file));
    },
  );

  test.each(variants.filter(({ name }) => /external/.test(name)))(
    'with an edit, of the variant: $name',
    async (variant) => {
      const m = await readModel(variant.write(mkdtempSync(join(folder, 'variant-'))));
      m.edits.set(fcWeight(m), halve);
      expect(await logits(m)).toEqual(await plain(await serializeModel(m)));
    },
  );

  test('takes weights of any offset in the file', async () => {
    const m = model({
      input: [value('x', [1, 64])],
      initializer: [weight('u', [64, 64]), weight('v', [64, 64])],
      node: [node('MatMul', ['x', 'u'], ['h']), node('MatMul', ['h', 'v'], ['y'])],
      output: [value('y', [1, 64])],
    });
    const x = { dtype: 'float32' as const, dims: [1, 64], data: noise(64) };
    const results = [];
    for (const docString of ['', 'a', 'ab', 'abc']) {
      const file = join(folder, `offset-${docString.length}.onnx`);
      writeFileSync(file, encodeModel({ ...m, producerName: `p${docString}` }));
      const read = await readModel(file);
      const offsets = [...allTensors(read.proto)].map(
        ({ tensor }) => (read.rawOffset(tensor) ?? 0) % 4,
      );
      const { bytes, folder: beside } = await openPart(read, read.proto);
      const { y } = await withSession(bytes, { folder: beside }, (session) => session.run({ x }));
      results.push({ offsets, y: Array.from(y.data, Number) });
    }
    expect(new Set(results.map(({ offsets }) => offsets.join())).size).toBe(4);
    for (const { y } of results) expect(y).toEqual(results[0].y);
  });

  test('of a part of the graph holds only its own weights', async () => {
    const m = await readModel(path);
    const proto = extractPart(
      m.proto,
      [{ name: '/Flatten_output_0', type: { tensorType: { elemType: 1 } } }],
      ['logits'],
    );
    const { bytes } = await openPart(m, proto);
    expect(bytes.length).toBeLessThan(4000);
  });

  test('the model and its tensors are not changed', async () => {
    const m = await readModel(path);
    const before = encodeModel(m.proto);
    await openPart(m, m.proto);
    expect(Buffer.compare(encodeModel(m.proto), before)).toBe(0);
  });
});
