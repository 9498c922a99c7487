import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { encodeModel } from '../../src/onnx/index.js';
import { expectCleanFailure, flat, json, output, resect, scratchFolder } from '../support/cli.js';
import { gptMoby, resnet8 } from '../support/fixtures.js';
import { floats, linear, model, node, value, weight } from '../support/protos.js';

const folder = scratchFolder();
const write = (name: string, bytes: Uint8Array) => {
  const path = join(folder, name);
  writeFileSync(path, bytes);
  return path;
};

test('a model is the same as itself', async () => {
  expect(await output(['diff', resnet8.model, resnet8.model])).toBe('The models are the same.\n');
  expect(await json(['diff', resnet8.model, resnet8.model])).toEqual({
    same: true,
    differences: [],
  });
});

test('unlike models differ: exit code 1, and that is no error', async () => {
  const { code, stdout, stderr } = await resect(['diff', resnet8.model, gptMoby.model]);
  expect({ code, stderr }).toEqual({ code: 1, stderr: '' });
  expect(stdout).toMatch(/\d+ differences: /);
});

test('a model that cannot be read is an error, and no difference', async () => {
  const outcome = await resect(['diff', resnet8.model, join(folder, 'nowhere.onnx')]);
  expectCleanFailure(outcome, 7, /nowhere\.onnx/);
});

const w = weight('w', [8, 4]);
const values = new Float32Array(w.rawData!.slice().buffer);
values[5] += 0.25;

test.each<[string, Uint8Array, object]>([
  [
    'values',
    linear({ initializer: [floats('w', [8, 4], values)] }),
    { kind: 'tensor', where: 'w', values: { changed: 1, elements: 32, largest: 0.25 } },
  ],
  ['a shape', linear({ initializer: [weight('w', [4, 8])] }), { kind: 'tensor', where: 'w' }],
  [
    'a tensor that is new',
    linear({ initializer: [w, weight('v', [2])] }),
    { kind: 'tensor', where: 'v', detail: 'added' },
  ],
  ['a tensor that is gone', linear({ initializer: [] }), { kind: 'tensor', detail: 'removed' }],
  [
    'an operator',
    linear({ node: [node('Gemm', ['x', 'w'], ['y'])] }),
    { kind: 'node', where: 'y' },
  ],
  [
    'the wiring',
    linear({ node: [node('MatMul', ['w', 'x'], ['y'])] }),
    { kind: 'node', where: 'y' },
  ],
  [
    'an attribute',
    linear({ node: [node('MatMul', ['x', 'w'], ['y'], { a: 1 })] }),
    { kind: 'node', where: 'y', detail: expect.stringContaining('attribute a') },
  ],
  [
    'the interface',
    linear({ input: [value('x', ['batch', 8], 'float16')] }),
    { kind: 'interface', where: 'inputs' },
  ],
  ['the opset', linear({}, { opsetImport: [{ version: 18 }] }), { kind: 'model', where: 'opsets' }],
  [
    'metadata',
    linear({}, { metadataProps: [{ key: 'licence', value: 'MIT' }] }),
    { kind: 'metadata', where: 'licence', detail: 'none -> MIT' },
  ],
])('a difference of %s is told', async (name, bytes, difference) => {
  const a = write('a.onnx', linear());
  const b = write(`${name.replace(/\W+/g, '-')}.onnx`, bytes);
  const { code, stdout } = await resect(['diff', a, b, '--json']);
  expect(code).toBe(1);
  expect(JSON.parse(stdout)).toEqual({
    same: false,
    differences: [expect.objectContaining(difference)],
  });
});

test('the order of tensors, and how they are stored, is no difference', async () => {
  const parts = {
    node: [node('MatMul', ['x', 'w'], ['h']), node('Add', ['h', 'v'], ['y'])],
    input: [value('x', ['batch', 8])],
    output: [value('y', ['batch', 4])],
  };
  const v = weight('v', [4]);
  const typed = { ...v, rawData: undefined, floatData: [v.rawData!] };
  const a = write('order-a.onnx', encodeModel(model({ ...parts, initializer: [w, v] })));
  const b = write('order-b.onnx', encodeModel(model({ ...parts, initializer: [typed, w] })));
  expect(await output(['diff', a, b])).toMatch(/same/);
});

test('in the table every difference can be told from the others', async () => {
  const long = (name: string) =>
    `model/encoder/layers.11/attention/self/query/projection/${name}/MatMul_weight_quantized`;
  const [one, two] = [long('left'), long('right')];
  const build = (shift: number) =>
    linear({
      initializer: [w, ...[one, two].map((name) => floats(name, [2], Float32Array.of(shift, 1)))],
    });
  const { stdout } = await resect(['diff', write('l1.onnx', build(0)), write('l2.onnx', build(5))]);
  const rows = stdout.split('\n').filter((line) => line.startsWith('tensor'));
  expect(rows).toHaveLength(2);
  expect(new Set(rows).size).toBe(2);
  expect(flat(stdout)).toMatch(/1 of 2 values/);
});
