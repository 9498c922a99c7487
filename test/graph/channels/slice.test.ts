import { keepChannels } from '../../../src/graph/channels/slice.js';
import {
  encodeFloat32,
  encodeModel,
  type ModelProto,
  makeTensor,
  readTensorFloat32,
} from '../../../src/onnx/index.js';
import { node, value, weight } from '../../support/protos.js';
import { distance, floatTensor, runOnce } from '../../support/run.js';
import { readOriginal } from '../../support/variants.js';
import { noise } from '../helpers.js';
import { expectExact, groupOf, groupsOf, reasons, reread } from './helpers.js';
import { images, type Network, network } from './models.js';

const chain = (change: (n: Network) => void = () => {}): ModelProto =>
  network((n) => {
    const a = n.op('Relu', [n.conv('x', 3, 8, { name: 'a' })]);
    const b = n.head(n.conv(a, 8, 4, { name: 'b' }), 4);
    change(n);
    return b;
  });

const graphOf = ({ graph }: ModelProto) => {
  if (!graph) throw new Error('no graph');
  return graph;
};

/** The stored weight of the node with this output. */
const weightOf = (proto: ModelProto, output: string) => {
  const { node: nodes, initializer } = graphOf(proto);
  const name = nodes.find((n) => n.output[0] === output)?.input[1];
  return initializer.find((t) => t.name === name);
};

describe('what is written', () => {
  test('constants keep names, order and notes; descriptions of values are corrected', async () => {
    const proto = chain();
    const graph = graphOf(proto);
    graph.initializer[0].docString = 'first';
    graph.valueInfo = [value('a', [2, 8, 8, 8]), value('b', [2, 4, 8, 8]), value('logits', [2, 3])];
    const model = reread({ ...proto, metadataProps: [{ key: 'author', value: 'me' }] });
    const a = groupOf(await groupsOf(model.proto, images), 'a');
    const pruned = await keepChannels(model, new Map([[a, [1, 2, 5]]]));
    expect(pruned.metadataProps).toEqual([{ key: 'author', value: 'me' }]);
    const { initializer, valueInfo } = graphOf(pruned);
    expect(initializer.map((t) => t.name)).toEqual(graph.initializer.map((t) => t.name));
    expect(initializer[0]).toMatchObject({ dims: [3, 3, 3, 3], docString: 'first' });
    expect(valueInfo).toEqual([
      value('a', [2, 3, 8, 8]),
      value('b', [2, 4, 8, 8]),
      value('logits', [2, 3]),
    ]);
    // What is not cut is not copied.
    expect(initializer[3]).toBe(model.proto.graph?.initializer[3]);
  });

  test('a weight that two nodes read is cut for each, and shared no more', async () => {
    const proto = network((n) => {
      const w = n.weight([8, 8, 3, 3]);
      const same = { pads: [1, 1, 1, 1] };
      const a = n.conv('x', 3, 8, { name: 'a' });
      const b = n.op('Conv', [n.op('Relu', [a]), w], same, 'b');
      const c = n.op('Conv', [n.op('Relu', [b]), w], same, 'c');
      return n.head(n.op('Relu', [c]), 8);
    });
    await expectExact(proto, images);
    const pruned = await expectExact(proto, images, ({ channels }, i) =>
      [...Array(channels).keys()].slice(i + 1),
    );
    expect(weightOf(pruned, 'b')?.dims).toEqual([6, 7, 3, 3]);
    expect(weightOf(pruned, 'c')?.dims).toEqual([5, 6, 3, 3]);
  });

  test('values are read through edits, and a consumer can be given new weights', async () => {
    const model = reread(chain());
    const groups = await groupsOf(model.proto, images);
    const a = groupOf(groups, 'a');
    const b = groupOf(groups, 'b');
    const [bias] = a.parameters;
    model.edits.set(bias.view.tensor, () => encodeFloat32(new Float32Array(8).fill(3), 'float32'));
    const [{ node: consumer }] = a.consumers;
    const given = noise(4 * 2 * 9);
    const pruned = await keepChannels(
      model,
      new Map([
        [a, [2, 7]],
        [b, [0, 3]],
      ]),
      new Map([[consumer, given]]),
    );
    const stored = graphOf(pruned).initializer.find((t) => t.name === bias.view.tensor.name);
    expect([...(await readTensorFloat32(reread(pruned), stored ?? weight('', [0])))]).toEqual([
      3, 3,
    ]);
    const written = weightOf(pruned, 'b');
    expect(written?.dims).toEqual([2, 2, 3, 3]);
    const values = await readTensorFloat32(reread(pruned), written ?? weight('', [0]));
    expect([...values]).toEqual([...given.slice(0, 18), ...given.slice(54, 72)]);
    await expect(
      keepChannels(model, new Map([[a, [2]]]), new Map([[consumer, given]])),
    ).rejects.toThrow('72 of 36');
  });

  test('selections that leave no sound model are bugs', async () => {
    const model = reread(chain());
    const groups = await groupsOf(model.proto, images);
    const keep = (name: string, kept: number[]) =>
      keepChannels(model, new Map([[groupOf(groups, name), kept]]));
    await expect(keep('logits', [0])).rejects.toThrow('an output of the model');
    await expect(keep('a', [])).rejects.toThrow('at least one');
    await expect(keep('a', [3, 1])).rejects.toThrow('ascend');
    await expect(keep('a', [8])).rejects.toThrow('no channel 8');
  });

  test('all channels kept is the same model', async () => {
    const model = reread(readOriginal());
    const groups = (await groupsOf(model.proto, [2, 1, 28, 28])).filter((g) => !g.skip);
    const all = new Map(groups.map((g) => [g, [...Array(g.channels).keys()]]));
    const pruned = await keepChannels(model, all);
    expect(Buffer.compare(encodeModel(pruned), encodeModel(model.proto))).toBe(0);
  });
});

describe('how weights are stored', () => {
  test('in half precision under a Cast: stays half', async () => {
    const proto = chain((n) => {
      const [conv] = n.nodes;
      n.stored[0] = makeTensor({
        name: 'half',
        dtype: 'float16',
        shape: [8, 3, 3, 3],
        bytes: encodeFloat32(noise(216), 'float16'),
      });
      n.nodes.unshift(node('Cast', ['half'], ['single'], { to: 1 }));
      conv.input[1] = 'single';
    });
    const pruned = await expectExact(proto, images);
    const { node: nodes, initializer } = graphOf(pruned);
    expect(nodes.filter((n) => n.opType === 'Cast')).toHaveLength(1);
    expect(initializer.map((t) => t.name)).not.toContain('half');
    expect(
      initializer.find((t) => t.name === nodes.find((n) => n.opType === 'Cast')?.input[0]),
    ).toMatchObject({ dims: [4, 3, 3, 3], dataType: 10 });
  });

  test('transposed, and as Constant nodes', async () => {
    const proto = chain((n) => {
      const [conv] = n.nodes;
      const [w] = n.stored.splice(0, 1);
      n.nodes.unshift(
        node('Constant', [], ['turned'], { value: { ...w, name: '', dims: [3, 8, 3, 3] } }),
        node('Transpose', ['turned'], ['upright'], { perm: [1, 0, 2, 3] }),
      );
      conv.input[1] = 'upright';
    });
    const pruned = await expectExact(proto, images);
    expect(graphOf(pruned).node.map((n) => n.opType)).not.toContain('Transpose');
    expect(weightOf(pruned, 'a')?.dims).toEqual([4, 3, 3, 3]);
  });

  test('MatMul, Gemm with either orientation, biases of several shapes', async () => {
    const proto = network(
      (n) => {
        const a = n.op('Gelu', [
          n.op('Add', [n.op('MatMul', ['x', n.weight([5, 8])], {}, 'a'), n.weight([8])]),
        ]);
        const b = n.op('Gemm', [a, n.weight([8, 6]), n.weight([1, 6])], {}, 'b');
        const c = n.op(
          'Gemm',
          [n.op('Tanh', [b]), n.weight([4, 6]), n.scalar(1)],
          { transB: 1 },
          'c',
        );
        return n.op('MatMul', [c, n.weight([4, 3])], {}, 'logits');
      },
      [4, 5],
      20,
    );
    expect(weightOf(await expectExact(proto, [4, 5]), 'b')?.dims).toEqual([4, 3]);
  });

  test('listed as inputs, which every model before IR 4 does', async () => {
    const proto = chain();
    const graph = graphOf(proto);
    graph.input = [...graph.input, ...graph.initializer.map((t) => value(t.name ?? '', t.dims))];
    expect(reasons(await groupsOf(proto, images)).a).toMatch(/can be overridden by the caller/);
    const pruned = await expectExact(
      { ...proto, irVersion: 3, opsetImport: [{ version: 7 }] },
      images,
    );
    const { input, initializer } = graphOf(pruned);
    expect(input.slice(1)).toEqual(initializer.map((t) => value(t.name ?? '', t.dims)));
  });

  test('quantized, computed, in a body: refused', async () => {
    const quantized = chain((n) => {
      n.stored.push(
        makeTensor({
          name: 'q',
          dtype: 'int8',
          shape: [8, 3, 3, 3],
          bytes: new Uint8Array(216).fill(7),
        }),
      );
      n.nodes[0].input[1] = 'w';
      n.nodes.unshift(node('DequantizeLinear', ['q', n.scalar(0.1)], ['w']));
    });
    expect(reasons(await groupsOf(quantized, images)).a).toMatch(/is quantized/);
    const computed = network((n) => {
      const a = n.conv('x', 3, 8, { name: 'a' });
      return n.op('Conv', [a, n.op('Mul', [n.weight([2, 8, 1, 1]), n.scalar(2)])]);
    });
    expect(reasons(await groupsOf(computed, images)).a).toMatch(/computed by Mul/);
    const captured = chain((n) => {
      n.stored.push(makeTensor({ name: 'yes', dtype: 'bool', shape: [], bytes: Uint8Array.of(1) }));
      const body = (op: string) => ({
        name: op,
        node: [node(op, ['a'], [op])],
        initializer: [],
        input: [],
        output: [value(op, images)],
        valueInfo: [],
      });
      n.nodes.push(
        node('If', ['yes'], ['either'], { then_branch: body('Relu'), else_branch: body('Abs') }),
      );
    });
    expect(reasons(await groupsOf(captured, images)).a).toBe('If reads it');
  });
});

describe('numbers that count channels', () => {
  const halves = (opset: number, split: (n: Network, x: string) => string[]) =>
    network(
      (n) => {
        const [a, b] = split(n, n.conv('x', 3, 8, { name: 'a' }));
        return n.conv(n.op('Concat', [b, n.op('Relu', [a])], { axis: 1 }), 8, 2, { name: 'b' });
      },
      images,
      opset,
    );
  const uneven = () => [0, 1, 2, 6];

  test.each([
    ['Split with sizes as attribute', 11, { axis: 1, split: [4, 4] }],
    ['Split without sizes before opset 13', 11, { axis: 1 }],
    ['Split by number of outputs', 18, { axis: 1, num_outputs: 2 }],
  ])('%s', async (_, opset, attributes) => {
    const proto = halves(opset, (n, x) => n.ops('Split', [x], ['l', 'r'], attributes));
    const groups = await groupsOf(proto, images);
    expect(groupOf(groups, 'a').parts).toEqual([
      [0, 1, 2, 3],
      [4, 5, 6, 7],
    ]);
    await expectExact(proto, images, uneven);
    await expect(expectExact(proto, images, () => [0, 2])).rejects.toThrow('one of 4, 5, 6, 7');
  });

  test('Slice to the very end, by attributes that are beyond safe integers', async () => {
    const proto = halves(9, (n, x) => {
      const end = n.op('Slice', [x], { axes: [1, 2], starts: [4, 0], ends: [1 << 30, 1 << 30] });
      const slice = n.nodes.at(-1)?.attribute.find((a) => a.name === 'ends');
      if (slice) slice.ints = [2n ** 63n - 1n, 2n ** 63n - 1n];
      return [n.op('Slice', [x], { axes: [1], starts: [0], ends: [-4] }), end];
    });
    await expectExact(proto, images, uneven);
  });

  test('one list that two nodes read', async () => {
    const proto = network((n) => {
      const target = n.ints(2, 8, 64);
      const flat = (x: string) => n.op('Reshape', [x, target]);
      const both = n.op('Add', [
        flat(n.conv('x', 3, 8, { name: 'a' })),
        flat(n.conv('x', 3, 8, { name: 'b' })),
      ]);
      return n.conv(n.op('Reshape', [both, n.ints(2, -1, 8, 8)]), 8, 2);
    });
    const pruned = await expectExact(proto, images);
    expect(graphOf(pruned).initializer.filter((t) => t.dims.join() === '3')).toHaveLength(1);
    const apart = network((n) => {
      const target = n.ints(2, 8, 64);
      const a = n.op('Reshape', [n.conv('x', 3, 8, { name: 'a' }), target]);
      const b = n.op('Reshape', [n.conv('x', 3, 8, { name: 'b' }), target]);
      return n.conv(n.op('Concat', [a, b], { axis: 1 }), 16, 2, { kernel: 1, name: 'c' });
    });
    const last = apart.graph?.node.at(-1);
    const w = apart.graph?.initializer.find((t) => t.name === last?.input[1]);
    if (!last || !w) throw new Error('no last layer');
    w.dims = [2, 16, 1];
    last.attribute = last.attribute.filter((a) => a.name === 'group');
    await expectExact(apart, images, (_, i) => (i === 0 ? [1, 2] : [0, 3, 4]));
  });
});

test('the pruned model runs on other sizes of image where the original does', async () => {
  const proto = chain();
  graphOf(proto).input = [value('x', ['n', 3, 'h', 'w'])];
  const pruned = await expectExact(proto, images);
  const x = { x: floatTensor([1, 3, 5, 7], noise(105)) };
  const [a, b] = [await runOnce(pruned, x), await runOnce(pruned, x, { optimize: true })];
  expect(distance(a.logits, b.logits)).toBeLessThan(1e-5);
});
