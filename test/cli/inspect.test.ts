import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { expectCleanFailure, flat, json, output, resect, scratchFolder } from '../support/cli.js';
import { gptMoby, resnet8 } from '../support/fixtures.js';
import { floats, linear } from '../support/protos.js';

const folder = scratchFolder();

test('one model: interface, sizes, operators and layers', async () => {
  const text = await output(['inspect', resnet8.model]);
  expect(text).toContain(resnet8.model);
  expect(flat(text)).toMatch(/IR 7 .*opsets ai\.onnx 13 .*pytorch 2\.15\.0/);
  expect(text).toMatch(/^in +image +float32 +batch x 1 x 28 x 28$/m);
  expect(text).toMatch(/^out +logits +float32 +batch x 10$/m);
  expect(text).toMatch(/^file +321 KB$/m);
  expect(flat(text)).toMatch(/31 nodes: 9 BatchNormalization, 9 Conv, 7 Relu, 3 Add/);
  expect(text).toMatch(/^\/block3\/b\/conv\/Conv +Conv +64 x 576 +0\.00 %$/m);
});

test('several models: a row each', async () => {
  const rows = (await output(['inspect', resnet8.model, gptMoby.model])).trim().split('\n');
  expect(rows).toHaveLength(4);
  expect(rows[0]).toMatch(/^model +nodes +layers +parameters +zeros +file +gzipped$/);
  expect(rows[2]).toMatch(/resnet8\.onnx +31 +10 +[\d,]+ +0\.00 % +321 KB +293 KB$/);
  expect(rows[3]).toMatch(/gpt-moby\.onnx +193 +25 +[\d,]+ +1\.44 % +2\.32 MB +2\.08 MB$/);
});

test('as JSON: all of it, in numbers', async () => {
  const inspections = await json(['inspect', resnet8.model]);
  const { size } = statSync(resnet8.model);
  expect(inspections).toEqual([
    expect.objectContaining({
      path: resnet8.model,
      irVersion: 7,
      opsets: { 'ai.onnx': 13 },
      inputs: [{ name: 'image', dtype: 'float32', dims: ['batch', 1, 28, 28] }],
      outputs: [{ name: 'logits', dtype: 'float32', dims: ['batch', 10] }],
      ops: expect.objectContaining({ Conv: 9, Gemm: 1 }),
      nodes: 31,
      externalFiles: [],
      metadata: {},
      size: expect.objectContaining({
        bytes: size,
        gzipBytes: gzipSync(readFileSync(resnet8.model), { level: 6 }).length,
        zeros: 0,
      }),
      tensors: { float32: { count: 47, elements: 78426, bytes: 4 * 78426 } },
    }),
  ]);
  expect((inspections as { layers: unknown[] }[])[0].layers).toHaveLength(10);
});

test('zeros are counted, of the model and of each layer', async () => {
  const model = join(folder, 'zeros.onnx');
  const values = Float32Array.from({ length: 32 }, (_, i) => (i % 4 === 0 ? 0 : i));
  writeFileSync(model, linear({ initializer: [floats('w', [8, 4], values)] }));
  expect(await json(['inspect', model])).toEqual([
    expect.objectContaining({
      size: expect.objectContaining({ zeros: 8, parameters: 32 }),
      layers: [expect.objectContaining({ name: 'multiply', shape: [4, 8], zeros: 0.25 })],
    }),
  ]);
});

test('weights stay unread on request', async () => {
  const [inspection] = (await json(['inspect', '--no-weights', resnet8.model])) as {
    size: object;
    layers: object[];
  }[];
  expect(inspection.size).not.toHaveProperty('zeros');
  expect(inspection.size).not.toHaveProperty('gzipBytes');
  expect(inspection.layers[0]).not.toHaveProperty('zeros');
});

test('of several models, an error names the one', async () => {
  const model = join(folder, 'damaged.onnx');
  const w = { name: 'w', dims: [8, 4], dataType: 1, rawData: new Uint8Array(3) };
  writeFileSync(model, linear({ initializer: [w] }));
  const outcome = await resect(['inspect', resnet8.model, model]);
  expectCleanFailure(outcome, 5, /damaged\.onnx.*"w"/);
});
