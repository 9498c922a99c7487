import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fillValues, normalize } from '../../../src/autodiff/normalize/index.js';
import { makeNode } from '../../../src/graph/build.js';
import {
  Model,
  type ModelProto,
  type NodeProto,
  readModel,
  type TensorProto,
  writeModel,
} from '../../../src/onnx/index.js';
import { floats, ints, weight } from '../../support/protos.js';
import { expectSame, feed, modelOf } from './helpers.js';

const ones = floats('ones', [4], new Float32Array(4).fill(1));
const zeros = floats('zeros', [4], new Float32Array(4));
const feeds = { x: feed([3, 4]) };

const build = (nodes: NodeProto[], initializers: TensorProto[], outputs?: string[]): ModelProto =>
  modelOf({ opset: 17, nodes, feeds, initializers, outputs });

/** The initializers that each node reads, by the node's output. */
function reads(model: ModelProto): Record<string, string[]> {
  const stored = new Set(model.graph?.initializer.map((t) => t.name));
  const nodes = model.graph?.node ?? [];
  return Object.fromEntries(nodes.map((n) => [n.output[0], n.input.filter((i) => stored.has(i))]));
}

describe('unshare', () => {
  test('equal scales and biases of two normalisations come apart, through Identity too', async () => {
    const model = build(
      [
        makeNode('Identity', ['ones'], 'same'),
        makeNode('LayerNormalization', ['x', 'ones', 'zeros'], 'a'),
        makeNode('LayerNormalization', ['a', 'same', 'zeros'], 'y'),
      ],
      [ones, zeros],
    );
    const { model: normal, origin, unshared } = await normalize(new Model(model));
    const { a, y } = reads(normal);
    expect(a).toEqual(['ones', 'zeros']);
    expect(new Set([...a, ...y]).size).toBe(4);
    expect(unshared).toEqual(
      new Map([
        [ones, ['ones', y[0]]],
        [zeros, ['zeros', y[1]]],
      ]),
    );
    expect([...a, ...y].map((name) => origin.get(name))).toEqual([ones, zeros, ones, zeros]);
    expect(
      normal.graph?.initializer.every(
        (t) => t.rawData === ones.rawData || t.rawData === zeros.rawData,
      ),
    ).toBe(true);
    await expectSame(model, normal, feeds);
  });

  test('a chain of reshapes is copied with its tensor', async () => {
    const model = build(
      [
        makeNode('Reshape', ['ones', 'shape'], 'row'),
        makeNode('Transpose', ['row'], 'column'),
        makeNode('Mul', ['x', 'row'], 'a'),
        makeNode('MatMul', ['a', 'column'], 'b'),
        makeNode('Mul', ['a', 'row'], 'c'),
        makeNode('Add', ['b', 'c'], 'y'),
      ],
      [ones, ints('shape', 1, 4)],
    );
    const { model: normal, unshared } = await normalize(new Model(model));
    expect(unshared.get(ones)).toHaveLength(3);
    await expectSame(model, normal, feeds);
  });

  test('a layer that is applied twice keeps its bias', async () => {
    const model = build(
      [
        makeNode('Gemm', ['x', 'w', 'zeros'], 'a'),
        makeNode('Gemm', ['a', 'w', 'zeros'], 'b'),
        makeNode('Gemm', ['b', 'other', 'zeros'], 'y'),
      ],
      [zeros, weight('w', [4, 4]), weight('other', [4, 4])],
    );
    const { model: normal, unshared } = await normalize(new Model(model));
    const { a, b, y } = reads(normal);
    expect(b).toEqual(a);
    expect(y[1]).not.toBe('zeros');
    expect(unshared.get(zeros)).toEqual(['zeros', y[1]]);
    await expectSame(model, normal, feeds);
  });

  const tied: [string, NodeProto[], TensorProto[]][] = [
    [
      'trained vectors',
      [makeNode('Mul', ['x', 'v'], 'a'), makeNode('Mul', ['a', 'v'], 'y')],
      [weight('v', [4])],
    ],
    [
      'matrices, of equal elements even',
      [makeNode('MatMul', ['x', 'm'], 'a'), makeNode('MatMul', ['a', 'm'], 'y')],
      [floats('m', [4, 4], new Float32Array(16).fill(0.5))],
    ],
    [
      'scalars',
      [makeNode('Mul', ['x', 's'], 'a'), makeNode('Mul', ['a', 's'], 'y')],
      [floats('s', [1], Float32Array.of(0.5))],
    ],
    [
      'embeddings',
      [
        makeNode('Gather', ['ones', 'i'], 'a'),
        makeNode('Mul', ['x', 'ones'], 'b'),
        makeNode('Mul', ['b', 'a'], 'y'),
      ],
      [ones, ints('i', 0)],
    ],
    [
      'integers',
      [makeNode('Reshape', ['x', 'i'], 'a'), makeNode('Reshape', ['a', 'i'], 'y')],
      [ints('i', 0, 0)],
    ],
    [
      'both inputs of one node',
      [makeNode('Mul', ['ones', 'ones'], 'a'), makeNode('Mul', ['x', 'a'], 'y')],
      [ones],
    ],
  ];
  test.each(tied)('%s stay shared', async (_, nodes, initializers) => {
    const { model, unshared } = await normalize(new Model(build(nodes, initializers)));
    expect(unshared.size).toBe(0);
    expect(model.graph?.initializer).toHaveLength(initializers.length);
  });

  test('an output of the graph keeps the tensor itself', async () => {
    const model = build(
      [makeNode('Mul', ['x', 'ones'], 'a'), makeNode('Mul', ['a', 'ones'], 'y')],
      [ones],
      ['y', 'ones'],
    );
    const { model: normal } = await normalize(new Model(model));
    await expectSame(model, normal, feeds);
  });

  test('values in another file tell, too', async () => {
    const wide = floats('wide', [512], new Float32Array(512).fill(1));
    const model = modelOf({
      opset: 17,
      nodes: [makeNode('Mul', ['x', 'wide'], 'a'), makeNode('Mul', ['a', 'wide'], 'y')],
      feeds: { x: feed([2, 512]) },
      initializers: [wide],
    });
    const folder = mkdtempSync(join(tmpdir(), 'resect-unshare-'));
    try {
      const path = join(folder, 'model.onnx');
      await writeModel(new Model(model), path, { externalData: true });
      const source = await readModel(path);
      const { model: normal, origins, unshared } = await normalize(source);
      expect([...unshared.values()]).toEqual([['wide', expect.any(String)]]);
      await expectSame(model, await fillValues(normal, origins, source), { x: feed([2, 512]) });
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });

  test('a chain of any length is followed', async () => {
    const links = Array.from({ length: 20_000 }, (_, i) =>
      makeNode('Identity', [i === 0 ? 'ones' : `i${i - 1}`], `i${i}`),
    );
    const nodes = [
      makeNode('Mul', ['x', 'ones'], 'a'),
      ...links,
      makeNode('Mul', ['a', 'i19999'], 'y'),
    ];
    const { model: normal } = await normalize(new Model(build(nodes, [ones])));
    expect(normal.graph?.node).toHaveLength(2);
  });
});
