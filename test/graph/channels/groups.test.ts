import { expectExact, groupOf, groupsOf, members, reasons } from './helpers.js';
import { images, type Network, network } from './models.js';

const weightDims = (proto: Awaited<ReturnType<typeof expectExact>>, output: string) => {
  const node = proto.graph?.node.find((n) => n.output[0] === output);
  return proto.graph?.initializer.find((t) => t.name === node?.input[1])?.dims;
};

test('a chain that is flattened takes blocks of columns of the matrix behind it', async () => {
  const vgg = network((n) => {
    const a = n.convBnRelu('x', 3, 6, { name: 'a' });
    const b = n.op('Relu', [
      n.conv(n.op('MaxPool', [a], { kernel_shape: [2, 2], strides: [2, 2] }), 6, 4, { name: 'b' }),
    ]);
    const flat = n.op('Flatten', [b]);
    return n.gemm(n.op('Relu', [n.gemm(flat, 64, 10, 'fc')]), 10, 3, 'logits');
  });
  const groups = await groupsOf(vgg, images);
  expect(reasons(groups)).toEqual({
    a: undefined,
    b: undefined,
    fc: undefined,
    logits: 'it is an output of the model',
  });
  const [consumer] = groupOf(groups, 'b').consumers;
  expect(consumer.tensor).toBe(vgg.graph?.node.find((node) => node.output[0] === 'fc')?.input[0]);
  expect([...consumer.channels.slice(14, 18)]).toEqual([0, 0, 1, 1]);
  expect(groupOf(groups, 'b').tensors.map(({ repeat }) => repeat)).toEqual([1, 1, 16]);
  const pruned = await expectExact(vgg, images);
  expect(weightDims(pruned, 'b')).toEqual([2, 3, 3, 3]);
  expect(weightDims(pruned, 'fc')).toEqual([5, 32]);
});

test.each([[[2, -1]], [[2, 64]], [[-1, 64]], [[0, 64]]])(
  'Reshape to %j flattens',
  async (target) => {
    const pruned = await expectExact(
      network((n) => {
        const small = n.op('AveragePool', [n.conv('x', 3, 4)], {
          kernel_shape: [2, 2],
          strides: [2, 2],
        });
        return n.gemm(n.op('Reshape', [small, n.ints(...target)]), 64, 3, 'logits');
      }),
      images,
    );
    expect(weightDims(pruned, 'logits')).toEqual([3, 32]);
  },
);

test('depthwise convolutions follow their producer, ReLU6 and hard swish are passed', async () => {
  const mobilenet = network((n) => {
    const clip = (x: string) => n.op('Clip', [x, n.scalar(0), n.scalar(6)]);
    const wide = clip(n.batchNorm(n.conv('x', 3, 8, { kernel: 1, name: 'expand' }), 8));
    const deep = n.op('HardSwish', [
      n.batchNorm(n.conv(wide, 8, 8, { group: 8, name: 'depthwise' }), 8),
    ]);
    const twice = n.conv(deep, 8, 16, { group: 8, name: 'twice' });
    return n.head(n.conv(twice, 16, 4, { kernel: 1, name: 'project' }), 4);
  });
  const groups = await groupsOf(mobilenet, images);
  expect(members(groupOf(groups, 'expand'))).toEqual({
    channels: 8,
    producers: ['expand'],
    consumers: ['project'],
  });
  expect([...groupOf(groups, 'expand').consumers[0].channels.slice(0, 4)]).toEqual([0, 0, 1, 1]);
  const pruned = await expectExact(mobilenet, images);
  expect(weightDims(pruned, 'depthwise')).toEqual([4, 1, 3, 3]);
  expect(weightDims(pruned, 'twice')).toEqual([8, 1, 3, 3]);
  expect(weightDims(pruned, 'project')).toEqual([2, 8, 1, 1]);
});

test('an Add makes one group of what it adds', async () => {
  const resnet = network((n) => {
    const stem = n.convBnRelu('x', 3, 8, { name: 'stem' });
    const a = n.convBnRelu(stem, 8, 4, { kernel: 1, name: 'a' });
    const b = n.convBnRelu(a, 4, 4, { name: 'b' });
    const c = n.batchNorm(n.conv(b, 4, 8, { kernel: 1, name: 'c' }), 8);
    return n.head(n.op('Relu', [n.op('Add', [c, stem])]), 8);
  });
  const groups = await groupsOf(resnet, images);
  expect(members(groupOf(groups, 'stem'))).toEqual({
    channels: 8,
    producers: ['stem', 'c'],
    consumers: ['a', 'logits'],
  });
  await expectExact(resnet, images);
});

test('a Concat leaves groups apart, and each takes its part of what reads it', async () => {
  const densenet = network((n) => {
    const first = n.conv('x', 3, 4, { name: 'first' });
    const one = n.conv(n.op('Relu', [n.batchNorm(first, 4)]), 4, 6, { name: 'one' });
    const two = n.op('Concat', [first, one], { axis: 1 });
    const three = n.conv(n.op('Relu', [n.batchNorm(two, 10)]), 10, 2, { name: 'three' });
    const four = n.op('Concat', [two, three], { axis: -3 });
    return n.head(n.op('Relu', [n.batchNorm(four, 12)]), 12);
  });
  const groups = await groupsOf(densenet, images);
  const one = groupOf(groups, 'one');
  expect(members(one)).toEqual({ channels: 6, producers: ['one'], consumers: ['three', 'logits'] });
  expect([...one.consumers[1].channels]).toEqual([-1, -1, -1, -1, 0, 1, 2, 3, 4, 5, -1, -1]);
  await expectExact(densenet, images);
  // One group alone.
  await expectExact(densenet, images, (g, i) => (i === 1 ? [0, 4] : [...Array(g.channels).keys()]));
});

test('a shuffle of channels is refused', async () => {
  const shufflenet = network((n) => {
    const a = n.conv('x', 3, 8, { name: 'a' });
    const split = n.op('Reshape', [a, n.ints(2, 2, 4, 8, 8)]);
    const turned = n.op('Transpose', [split], { perm: [0, 2, 1, 3, 4] });
    return n.head(n.op('Reshape', [turned, n.ints(2, 8, 8, 8)]), 8);
  });
  expect(reasons(await groupsOf(shufflenet, images))).toMatchObject({
    a: 'Reshape mixes its channels',
  });
});

test('the gate of squeeze and excitation goes with what it gates', async () => {
  const senet = network((n) => {
    const x = n.conv('x', 3, 8, { name: 'a' });
    const squeezed = n.op('Relu', [
      n.conv(n.op('ReduceMean', [x], { axes: [2, 3] }), 8, 4, { kernel: 1, name: 'squeeze' }),
    ]);
    const gate = n.op('Sigmoid', [n.conv(squeezed, 4, 8, { kernel: 1, name: 'excite' })]);
    return n.head(n.op('Mul', [x, gate]), 8);
  });
  const groups = await groupsOf(senet, images);
  expect(members(groupOf(groups, 'a'))).toEqual({
    channels: 8,
    producers: ['a', 'excite'],
    consumers: ['squeeze', 'logits'],
  });
  await expectExact(senet, images);
});

test('the groups of a convolution keep equal counts on both sides', async () => {
  const resnext = network((n) => {
    const a = n.op('Relu', [n.conv('x', 3, 8, { kernel: 1, name: 'a' })]);
    const b = n.op('Relu', [n.conv(a, 8, 12, { group: 2, name: 'b' })]);
    return n.head(b, 12);
  });
  const groups = await groupsOf(resnext, images);
  expect(groupOf(groups, 'a').blocks).toEqual([
    [0, 1, 2, 3],
    [4, 5, 6, 7],
  ]);
  expect(groupOf(groups, 'b').blocks?.map((block) => block.length)).toEqual([6, 6]);
  // Different ones in each group.
  const pruned = await expectExact(resnext, images, ({ channels }) =>
    channels === 8 ? [0, 3, 4, 5] : [1, 4, 5, 8, 9, 10],
  );
  expect(weightDims(pruned, 'b')).toEqual([6, 2, 3, 3]);
  await expect(expectExact(resnext, images, () => [0, 1, 5])).rejects.toThrow('equal counts');
});

test('a decoder of transposed convolutions, from a matrix to an image', async () => {
  const decoder = network(
    (n) => {
      const dense = n.op('Relu', [n.gemm('x', 5, 6 * 16, 'dense')]);
      const image = n.op('Reshape', [dense, n.ints(-1, 6, 4, 4)]);
      const up = n.op(
        'ConvTranspose',
        [image, n.weight([6, 8, 2, 2]), n.weight([8])],
        { strides: [2, 2] },
        'up',
      );
      const deep = n.op(
        'ConvTranspose',
        [n.op('Relu', [up]), n.weight([8, 1, 3, 3])],
        { group: 8, pads: [1, 1, 1, 1] },
        'deep',
      );
      const grouped = n.op(
        'ConvTranspose',
        [deep, n.weight([8, 3, 1, 1])],
        { group: 2 },
        'grouped',
      );
      return n.conv(grouped, 6, 3, { name: 'image' });
    },
    [2, 5],
  );
  const groups = await groupsOf(decoder, [2, 5]);
  expect(members(groupOf(groups, 'dense'))).toEqual({
    channels: 6,
    producers: ['dense'],
    consumers: ['up'],
  });
  const pruned = await expectExact(decoder, [2, 5]);
  expect(weightDims(pruned, 'dense')).toEqual([48, 5]);
  expect(weightDims(pruned, 'up')).toEqual([3, 4, 2, 2]);
  expect(weightDims(pruned, 'deep')).toEqual([4, 1, 3, 3]);
  expect(weightDims(pruned, 'grouped')).toEqual([4, 2, 1, 1]);
});

/** Ops between a convolution of eight channels and the next. */
const between: [string, (n: Network, x: string) => string][] = [
  ['PRelu', (n, x) => n.op('PRelu', [x, n.positive([8, 1, 1])])],
  [
    'constants of several shapes',
    (n, x) => n.op('Mul', [n.op('Add', [x, n.weight([1, 8, 1, 1])]), n.weight([8, 1, 1])]),
  ],
  ['a constant of every pixel', (n, x) => n.op('Add', [x, n.weight([8, 8, 8])])],
  ['a scalar and a row', (n, x) => n.op('Div', [n.op('Sub', [x, n.weight([1])]), n.positive([8])])],
  ['Pad of the image', (n, x) => n.op('Pad', [x, n.ints(0, 0, 1, 1, 0, 0, 1, 1)])],
  ['Resize by factors', (n, x) => n.op('Resize', [x, '', n.floats(1, 1, 2, 2)])],
  ['Resize to sizes', (n, x) => n.op('Resize', [x, '', '', n.ints(2, 8, 16, 16)])],
  ['Expand', (n, x) => n.op('Expand', [x, n.ints(8, 1, 1)])],
  [
    'InstanceNormalization',
    (n, x) => n.op('InstanceNormalization', [x, n.positive([8]), n.weight([8])]),
  ],
  [
    'Split and Concat',
    (n, x) => {
      const [a, b] = n.ops('Split', [x, n.ints(3, 5)], ['a3', 'b5'], { axis: 1 });
      return n.op('Concat', [b, n.op('Relu', [a])], { axis: 1 });
    },
  ],
  [
    'Split into equal parts',
    (n, x) => {
      const [a, b] = n.ops('Split', [x], ['a4', 'b4'], { axis: 1 });
      return n.op('Concat', [b, n.op('Relu', [a])], { axis: 1 });
    },
  ],
  [
    'a sum of halves',
    (n, x) => {
      const [a, b] = n.ops('Split', [x, n.ints(4, 4)], ['l', 'r'], { axis: 1 });
      const sum = n.op('Add', [a, b]);
      return n.op('Concat', [sum, sum], { axis: 1 });
    },
  ],
  [
    'Slices',
    (n, x) => {
      const part = (from: number, to: number) =>
        n.op('Slice', [x, n.ints(from, 0), n.ints(to, Number.MAX_SAFE_INTEGER), n.ints(1, 2)]);
      return n.op('Concat', [part(0, 3), n.op('Relu', [part(-5, 100)])], { axis: 1 });
    },
  ],
  [
    'Transpose there and back',
    (n, x) =>
      n.op('Transpose', [n.op('Relu', [n.op('Transpose', [x], { perm: [0, 2, 3, 1] })])], {
        perm: [0, 3, 1, 2],
      }),
  ],
  [
    'a shape of its own',
    (n, x) =>
      n.op('Reshape', [n.op('Relu', [n.op('Reshape', [x, n.ints(0, 8, 64)])]), n.op('Shape', [x])]),
  ],
  [
    'a shape put together',
    (n, x) => {
      const batch = n.op('Slice', [n.op('Shape', [x]), n.ints(0), n.ints(1)]);
      return n.op('Reshape', [x, n.op('Concat', [batch, n.ints(8, 8, 8)], { axis: 0 })]);
    },
  ],
  ['Softmax over the image', (n, x) => n.op('Softmax', [x], { axis: 3 })],
  [
    'an attention map over the image',
    (n, x) => n.op('Mul', [x, n.op('Sigmoid', [n.conv(x, 8, 1)])]),
  ],
];

test.each(between)('%s is passed', async (_, build) => {
  const proto = network((n) =>
    n.head(n.conv(build(n, n.conv('x', 3, 8, { name: 'first' })), 8, 4), 4),
  );
  const groups = await groupsOf(proto, images);
  expect(groupOf(groups, 'first').skip).toBeUndefined();
  const pruned = await expectExact(proto, images);
  expect(weightDims(pruned, 'first')?.[0]).toBeLessThan(8);
});

const refused: [string, (n: Network, x: string) => string, RegExp][] = [
  ['Softmax over channels', (n, x) => n.op('Softmax', [x], { axis: 1 }), /runs over its channels/],
  [
    'a mean of channels',
    (n, x) => n.op('Add', [x, n.op('ReduceMean', [x], { axes: [1] })]),
    /ReduceMean/,
  ],
  [
    'LayerNormalization',
    (n, x) => n.op('LayerNormalization', [x, n.weight([8, 8, 8])], { axis: 1 }),
    /LayerNormalization reads it/,
  ],
  ['an op without a rule', (n, x) => n.op('LRN', [x], { size: 3 }), /LRN reads it/],
  [
    'Pad of channels',
    (n, x) =>
      n.op('Slice', [
        n.op('Pad', [x, n.ints(0, 1, 0, 0, 0, 0, 0, 0)]),
        n.ints(0),
        n.ints(8),
        n.ints(1),
      ]),
    /Pad/,
  ],
  [
    'the number of channels computed with',
    (n, x) => n.op('Mul', [x, n.op('Cast', [n.op('ReduceProd', [n.op('Shape', [x])])], { to: 1 })]),
    /length/,
  ],
  [
    'its shape given to another value',
    (n, x) => n.op('Add', [x, n.op('Expand', [n.scalar(1), n.op('Shape', [x])])]),
    /length/,
  ],
  ['a broadcast beside channels', (n, x) => n.op('Add', [x, 'x3']), /not followed/],
];

test.each(refused)('%s is refused', async (_, build, reason) => {
  const proto = network((n) => {
    n.op(
      'Concat',
      ['x', 'x', n.op('Slice', ['x', n.ints(0), n.ints(2), n.ints(1)])],
      { axis: 1 },
      'x3',
    );
    return n.head(n.conv(build(n, n.conv('x', 3, 8, { name: 'first' })), 8, 4), 4);
  });
  expect(reasons(await groupsOf(proto, images)).first).toMatch(reason);
});
