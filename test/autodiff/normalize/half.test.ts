import { toFloat32 } from '../../../src/autodiff/normalize/half.js';
import { fillValues } from '../../../src/autodiff/normalize/index.js';
import { Origins } from '../../../src/autodiff/normalize/origins.js';
import { branch, emptyGraph, int, makeNode, tensor, tensorType } from '../../../src/graph/build.js';
import {
  type DType,
  decodeFloat32,
  dtypeCode,
  encodeFloat32,
  Model,
  makeTensor,
  readInlineBytes,
  type TensorProto,
} from '../../../src/onnx/index.js';
import { runOnce } from '../../support/run.js';
import { feed, modelOf, noise } from './helpers.js';

const rounded = (name: string, shape: number[], dtype: DType): TensorProto =>
  makeTensor({ name, dtype, shape, bytes: encodeFloat32(noise(shape, name.length), dtype) });

const exact = (t: TensorProto): Float32Array =>
  decodeFloat32(t.rawData ?? new Uint8Array(), t.dataType === 16 ? 'bfloat16' : 'float16');

const half = dtypeCode('float16');

/** x as float16, times a matrix, plus a vector that a branch chooses, as float32. */
function halfModel(dtype: DType = 'float16') {
  const code = dtypeCode(dtype);
  const w = rounded('w', [40, 50], dtype);
  const b = rounded('bias', [50], dtype);
  const body = (name: string) => ({
    ...emptyGraph(name),
    node: [
      makeNode('Constant', [], `${name}/c`, [tensor('value', rounded(name, [50], dtype))]),
      makeNode('Add', ['m', `${name}/c`], `${name}/y`),
    ],
    output: [{ name: `${name}/y`, type: tensorType(code, [2, 50]) }],
  });
  const model = modelOf({
    opset: 17,
    nodes: [
      makeNode('Cast', ['x'], 'h', [int('to', code)]),
      makeNode('MatMul', ['h', 'w'], 'p'),
      makeNode('Add', ['p', 'bias'], 'm'),
      makeNode('If', ['condition'], 'o', [
        branch('then_branch', body('then')),
        branch('else_branch', body('otherwise')),
      ]),
      makeNode('Identity', ['o'], 'y'),
    ],
    feeds: { x: feed([2, 40]) },
    initializers: [
      w,
      b,
      { name: 'condition', dims: [], dataType: dtypeCode('bool'), rawData: Uint8Array.of(1) },
    ],
  });
  if (model.graph) {
    model.graph.valueInfo = [{ name: 'h', type: tensorType(code, [2, 40]) }];
    model.graph.output = [{ name: 'y', type: tensorType(code) }];
  }
  return { model, w, b };
}

describe('toFloat32', () => {
  test.each(['float16', 'bfloat16'] as const)(
    '%s: nothing of it is left, and originals are untouched',
    async (dtype) => {
      const { model, w, b } = halfModel(dtype);
      const text = JSON.stringify(model);
      const origins = new Origins();
      const wide = toFloat32(model, origins);
      expect(JSON.stringify(model)).toBe(text);
      const code = dtypeCode(dtype);
      const rest = JSON.stringify(wide, (key, v) => (key === 'rawData' ? undefined : v));
      expect(rest).not.toMatch(new RegExp(`"(elemType|dataType|i)":${code}\\b`));

      const [wideW, wideB] = wide.graph?.initializer ?? [];
      expect(origins.of(wideW)).toBe(w);
      expect(origins.of(wideB)).toBe(b);
      expect(wideW).toEqual({ name: 'w', dims: [40, 50], dataType: dtypeCode('float32') });
      expect(decodeFloat32(readInlineBytes(wideB) ?? new Uint8Array(), 'float32')).toEqual(
        exact(b),
      );

      const filled = await fillValues(wide, origins, new Model(model));
      const values = readInlineBytes(filled.graph?.initializer[0] ?? w) ?? new Uint8Array();
      expect(decodeFloat32(values, 'float32')).toEqual(exact(w));
      const x = feed([2, 40]);
      const { y } = await runOnce(filled, { x });
      const then = exact(rounded('then', [50], dtype));
      for (const [i, got] of Array.from(y.data, Number).entries()) {
        let expected = exact(b)[i % 50] + then[i % 50];
        for (let k = 0; k < 40; k++)
          expected += Number(x.data[Math.floor(i / 50) * 40 + k]) * exact(w)[k * 50 + (i % 50)];
        expect(got).toBeCloseTo(expected, 4);
      }
    },
  );

  test('edits of the original show in the filled values', async () => {
    const { model, w, b } = halfModel();
    const source = new Model(model);
    source.edits.set(w, (raw) => new Uint8Array(raw.length));
    source.edits.set(b, (raw) => new Uint8Array(raw.length));
    const origins = new Origins();
    const filled = await fillValues(toFloat32(model, origins), origins, source);
    for (const tensor of filled.graph?.initializer.slice(0, 2) ?? [])
      expect(readInlineBytes(tensor)?.every((byte) => byte === 0)).toBe(true);
  });

  test('inputs, sequences and type attributes', () => {
    const sequence = { name: 's', type: { sequenceType: { elemType: tensorType(half) } } };
    const model = modelOf({
      opset: 17,
      nodes: [
        makeNode('RandomNormal', [], 'r', [int('dtype', half)]),
        makeNode('HannWindow', ['n'], 'w', [int('output_datatype', half)]),
        makeNode('EyeLike', ['x'], 'e', [int('dtype', 7)]),
        makeNode('TopK', ['x'], 't', [int('k', half)]),
      ],
      feeds: {},
    });
    model.graph?.input.push({ name: 'x', type: tensorType(half, [3]) }, sequence);
    const { graph } = toFloat32(model, new Origins());
    expect(graph?.input.map((v) => v.type)).toEqual([
      tensorType(1, [3]),
      { sequenceType: { elemType: tensorType(1) } },
    ]);
    expect(graph?.node.map((n) => n.attribute[0].i)).toEqual([1, 1, 7, half]);
  });
});
