import fc from 'fast-check';
import { alignOpsets } from '../../../../src/methods/merge/pair/align-opsets.js';
import { pairModels } from '../../../../src/methods/merge/pair/pair.js';
import { prepare } from '../../../../src/methods/merge/prepare.js';
import {
  encodeModel,
  type GraphProto,
  type ModelProto,
  type NodeProto,
  parseModel,
  readModel,
  readTensorFloat32,
} from '../../../../src/onnx/index.js';
import { newFolder, scratchFolder } from '../../../support/cli.js';
import { goldenFolder } from '../../../support/golden-cases.js';
import { floats, graph, ints, model, node, value, weight } from '../../../support/protos.js';
import { original, variants } from '../../../support/variants.js';

const folder = scratchFolder();
const t3 = goldenFolder('t3');

const labelled = (protos: (ModelProto & { graph?: GraphProto })[]) =>
  protos.map((proto, i) => ({ model: parseModel(encodeModel(proto)), label: 'ABCDE'[i] }));

const pair = (...protos: ModelProto[]) => pairModels(labelled(protos));

/** A small network with something of everything; parts may be replaced. */
const network = (change: (parts: GraphProto) => void = () => {}, opset = 17): ModelProto => {
  const parts = graph({
    node: [
      node('Conv', ['x', 'w1', 'b1'], ['c'], { pads: [1, 1, 1, 1] }, { name: 'conv' }),
      node('BatchNormalization', ['c', 's', 'o', 'm', 'v'], ['n'], {}, { name: 'norm' }),
      node('Relu', ['n'], ['r'], {}, { name: 'relu' }),
      node('Sub', ['n', 'r'], ['d'], {}, { name: 'minus' }),
      node('GlobalAveragePool', ['d'], ['p'], {}, { name: 'pool' }),
      node('Reshape', ['p', 'flat'], ['f'], {}, { name: 'flatten' }),
      node('Gemm', ['f', 'w2', 'b2'], ['y'], { transB: 1 }, { name: 'head' }),
    ],
    initializer: [
      weight('w1', [4, 3, 3, 3]),
      weight('b1', [4]),
      weight('s', [4]),
      weight('o', [4]),
      weight('m', [4]),
      floats('v', [4], Float32Array.of(1, 2, 3, 4)),
      ints('flat', -1, 4),
      weight('w2', [5, 4]),
      weight('b2', [5]),
    ],
    input: [value('x', ['batch', 3, 8, 8])],
    output: [value('y', ['batch', 5])],
  });
  change(parts);
  return model(parts, { opsetImport: [{ version: opset }] });
};

const replace = (parts: GraphProto, name: string, change: Partial<NodeProto>) => {
  parts.node = parts.node.map((n) => (n.name === name ? { ...n, ...change } : n));
};

const names = 'x c n r d p f y w1 b1 s o m v flat w2 b2'.split(' ');

describe('one structure', () => {
  test('roles, readers and the order of the first model', async () => {
    const { tensors } = await pair(network(), network());
    expect(tensors.map(({ name, role, input, node: n }) => [name, role, n.opType, input])).toEqual([
      ['w1', 'weight', 'Conv', 1],
      ['b1', 'weight', 'Conv', 2],
      ['s', 'weight', 'BatchNormalization', 1],
      ['o', 'weight', 'BatchNormalization', 2],
      ['m', 'mean', 'BatchNormalization', 3],
      ['v', 'variance', 'BatchNormalization', 4],
      ['w2', 'weight', 'Gemm', 1],
      ['b2', 'weight', 'Gemm', 2],
    ]);
  });

  test('other names and another order of nodes and initializers', async () => {
    const permutation = fc.tuple(
      fc.shuffledSubarray([...Array(9).keys()], { minLength: 9 }),
      fc.shuffledSubarray([...Array(7).keys()], { minLength: 7 }),
      fc.shuffledSubarray(names, { minLength: names.length }),
    );
    await fc.assert(
      fc.asyncProperty(permutation, async ([tensorOrder, nodeOrder, shuffledNames]) => {
        const called = new Map(names.map((name, i) => [name, `other/${shuffledNames[i]}`]));
        const rename = (name = '') => called.get(name) ?? name;
        const renamed = network((parts) => {
          const { node: nodes, initializer, input, output } = parts;
          parts.node = nodeOrder
            .map((i) => nodes[i])
            .map((n) => ({
              ...n,
              name: '',
              input: n.input.map(rename),
              output: n.output.map(rename),
            }));
          parts.initializer = tensorOrder
            .map((i) => initializer[i])
            .map((t) => ({ ...t, name: rename(t.name) }));
          parts.input = input.map((v) => ({ ...v, name: rename(v.name) }));
          parts.output = output.map((v) => ({ ...v, name: rename(v.name) }));
        });
        const { tensors } = await pair(network(), renamed);
        expect(tensors).toHaveLength(8);
        for (const {
          name,
          tensors: [, other],
        } of tensors)
          expect(other.name).toBe(rename(name));
      }),
      { numRuns: 30 },
    );
  });

  test('the golden models, whose names differ', async () => {
    const [a, b] = await Promise.all(
      ['expert_base.onnx', 'generalist.onnx'].map(async (file) => ({
        model: await readModel(t3.path(file)),
        label: file,
      })),
    );
    const { tensors } = await pairModels([a, b]);
    expect(tensors).toHaveLength(17);
    for (const {
      name,
      tensors: [, other],
    } of tensors)
      expect(`exp_${other.name?.replace(/^[a-z]+_(?=[cbf])/, '')}`).toContain(
        name.replace('exp_', ''),
      );
  });

  const stored = variants.filter(({ name, inBody }) => !inBody && !/half|int8/.test(name));
  test.each(stored.map((v) => [v.name, v] as const))('%s', async (name, variant) => {
    const path = variant.write(newFolder(folder, name.replaceAll(' ', '-')));
    const models = await Promise.all(
      [original, path].map(async (label) => ({ model: await readModel(label), label })),
    );
    if (name === 'disguised weights') {
      // What is turned and reshaped in one model only is another graph.
      await expect(pairModels(models)).rejects.toMatchObject({ exitCode: 5 });
      return;
    }
    const { tensors } = await pairModels(models);
    expect(tensors.length).toBeGreaterThan(40);
    for (const { tensors: pairOf } of tensors) {
      const [a, b] = await Promise.all(pairOf.map((t, i) => readTensorFloat32(models[i].model, t)));
      expect(b).toEqual(a);
    }
  });

  test('defaults that one exporter writes and another does not', async () => {
    const verbose = network((parts) => {
      const attributes = node('Conv', [], [], {
        pads: [1, 1, 1, 1],
        dilations: [1, 1],
        strides: [1, 1],
        group: 1,
        kernel_shape: [3, 3],
      }).attribute;
      replace(parts, 'conv', { attribute: attributes });
    });
    expect((await pair(network(), verbose)).tensors).toHaveLength(8);
  });

  test('copies of a weight by Identity', async () => {
    const copied = network((parts) => {
      parts.node.unshift(node('Identity', ['w2'], ['copy']));
      replace(parts, 'head', { input: ['f', 'copy', 'b2'] });
    });
    expect((await pair(network(), copied)).tensors).toHaveLength(8);
  });

  test('three models', async () => {
    const { tensors } = await pair(network(), network(), network());
    expect(tensors.every(({ tensors: t }) => t.length === 3)).toBe(true);
  });

  test('what is left out may differ in shape', async () => {
    const wide = network((parts) => {
      parts.initializer = parts.initializer.map((t) =>
        t.name === 'w2' ? weight('w2', [7, 4]) : t.name === 'b2' ? weight('b2', [7]) : t,
      );
      parts.output = [value('y', ['batch', 7])];
    });
    const kept = await pairModels(labelled([network(), wide]), (name) => !/2$/.test(name));
    expect(kept.tensors.map(({ name }) => name)).toEqual(['w1', 'b1', 's', 'o', 'm', 'v']);
  });

  test('a note for metadata that contradict each other', async () => {
    const [a, b] = [network(), network()];
    a.metadataProps = [
      { key: 'mean', value: '0.5' },
      { key: 'resect.tool', value: '1' },
    ];
    b.metadataProps = [
      { key: 'mean', value: '0.4' },
      { key: 'resect.tool', value: '2' },
    ];
    expect((await pair(a, b)).notes).toEqual([expect.stringMatching(/mean/)]);
  });

  test('a chain of 20,000 nodes', async () => {
    const chain = () =>
      model({
        node: Array.from({ length: 20_000 }, (_, i) => node('Add', [`v${i}`, 'w'], [`v${i + 1}`])),
        initializer: [weight('w', [4])],
        input: [value('v0', ['batch', 4])],
        output: [value('v20000', ['batch', 4])],
      });
    expect((await pair(chain(), chain())).tensors).toHaveLength(1);
  });
});

describe('what does not fit is named', () => {
  const wrong: [string, (parts: GraphProto) => void, RegExp[]][] = [
    [
      'another op',
      (parts) => replace(parts, 'relu', { opType: 'Tanh' }),
      [/relu/, /Relu "relu" in A/, /Tanh "relu" in B/],
    ],
    [
      'folded in one model only',
      (parts) => {
        parts.node = parts.node.filter(({ name }) => name !== 'norm');
        replace(parts, 'relu', { input: ['c'] });
        replace(parts, 'minus', { input: ['c', 'r'] });
      },
      [/BatchNormalization "norm" in A/, /--bn fold/],
    ],
    [
      'operands the other way round',
      (parts) => replace(parts, 'minus', { input: ['r', 'n'] }),
      [/Sub "minus"|Relu|minus/],
    ],
    [
      'another stride',
      (parts) =>
        replace(parts, 'conv', {
          attribute: node('Conv', [], [], { pads: [1, 1, 1, 1], strides: [2, 2] }).attribute,
        }),
      [/conv/, /strides/],
    ],
    [
      'another shape',
      (parts) => {
        parts.initializer[0] = weight('w1', [4, 3, 5, 5]);
      },
      [/w1/, /4, 3, 3, 3/, /4, 3, 5, 5/],
    ],
    [
      'a head of other width',
      (parts) => {
        parts.initializer[7] = weight('w2', [7, 4]);
        parts.initializer[8] = weight('b2', [7]);
        parts.output = [value('y', ['batch', 7])];
      },
      [/do not score the same classes/, /w2/, /--exclude/],
    ],
    [
      'another integer constant',
      (parts) => {
        parts.initializer[6] = ints('flat', 0, 4);
      },
      [/flat/, /constant/],
    ],
    [
      'half precision in one only',
      (parts) => {
        parts.initializer[8] = { ...weight('b2', [5]), dataType: 10, rawData: new Uint8Array(10) };
      },
      [/float32\[5\]/, /float16\[5\]/],
    ],
    [
      'another input',
      (parts) => {
        parts.input = [value('x', ['batch', 3, 9, 9])];
      },
      [/input/, /8/, /9/],
    ],
    [
      'training mode',
      (parts) =>
        replace(parts, 'norm', {
          attribute: node('BatchNormalization', [], [], { training_mode: 1 }).attribute,
        }),
      [/training mode/, /norm/],
    ],
  ];
  test.each(wrong)('%s', async (_, change, says) => {
    const refusal = pair(network(), network(change));
    await expect(refusal).rejects.toMatchObject({ exitCode: 5 });
    const error = await refusal.catch((e) => e);
    for (const pattern of says)
      expect(`${error.message} ${JSON.stringify(error.detail)}`.replaceAll('\\"', '"')).toMatch(
        pattern,
      );
  });

  test('a tensor that only one model shares', async () => {
    const twice = (b: string) =>
      model({
        node: [node('Add', ['x', 'a'], ['h']), node('Mul', ['h', b], ['y'])],
        initializer: [weight('a', [4]), ...(b === 'a' ? [] : [weight(b, [4])])],
        input: [value('x', ['batch', 4])],
        output: [value('y', ['batch', 4])],
      });
    for (const order of [
      [twice('a'), twice('b')],
      [twice('b'), twice('a')],
    ])
      await expect(pair(...order)).rejects.toMatchObject({
        exitCode: 5,
        message: expect.stringMatching(/share/),
      });
  });

  test('such tensors are taken apart before, with a note, and tied ones stay tied', async () => {
    const norms = (shared: boolean, tied: boolean) =>
      model({
        node: [
          node('LayerNormalization', ['x', 's1', 'zero'], ['a'], { axis: -1 }),
          node('Mul', ['a', 'e'], ['b']),
          node('LayerNormalization', ['b', shared ? 's1' : 's2', 'zero'], ['c'], { axis: -1 }),
          node('Mul', ['c', tied ? 'e' : 'f'], ['y']),
        ],
        initializer: ['s1', 'zero', 'e', ...(shared ? [] : ['s2']), ...(tied ? [] : ['f'])].map(
          (name) => weight(name, [4]),
        ),
        input: [value('x', ['batch', 4])],
        output: [value('y', ['batch', 4])],
      });
    for (const [a, b] of [
      [norms(true, true), norms(false, true)],
      [norms(false, true), norms(true, true)],
    ]) {
      const models = labelled([a, b]);
      const { tensors, notes } = await prepare(models, () => true, { bn: 'merge' });
      expect(tensors).toHaveLength(4);
      expect(notes.join()).toMatch(/A tensor that [AB] stores once .* taken apart/);
    }
    const three = labelled([norms(true, true), norms(false, true), norms(true, false)]);
    expect((await prepare(three, () => true, { bn: 'merge' })).tensors).toHaveLength(5);
  });

  test.each(['int8 per channel', 'uint8 per tensor'])('%s', async (name) => {
    const variant = variants.find((v) => v.name === name);
    const path = variant?.write(newFolder(folder, name.replaceAll(' ', '-'))) ?? '';
    const quantized = { model: await readModel(path), label: 'q' };
    await expect(
      pairModels([{ model: await readModel(original), label: 'a' }, quantized]),
    ).rejects.toMatchObject({ exitCode: 5, message: expect.stringMatching(/quantised/) });
  });

  test('weights in a branch', async () => {
    const inBranch = (factor: number) => {
      const proto = network((parts) => {
        const bias = floats('inner', [5], new Float32Array(5).fill(factor));
        const branch = () =>
          graph({
            node: [node('Add', ['y0', 'inner'], ['z'])],
            initializer: [bias],
            output: [value('z', ['batch', 5])],
          });
        replace(parts, 'head', { output: ['y0'] });
        parts.initializer.push(floats('yes', [], Float32Array.of(1)));
        parts.node.push(
          node('Cast', ['yes'], ['is'], { to: 9 }),
          node(
            'If',
            ['is'],
            ['y'],
            { then_branch: branch(), else_branch: branch() },
            { name: 'if' },
          ),
        );
      });
      return proto;
    };
    // The condition is a number, too.
    expect((await pair(inBranch(1), inBranch(1))).tensors).toHaveLength(9);
    await expect(pair(inBranch(1), inBranch(2))).rejects.toMatchObject({
      exitCode: 5,
      message: expect.stringMatching(/control-flow body/),
    });
  });
});

describe('opsets', () => {
  test.each([
    [9, 17],
    [13, 17],
    [13, 20],
    [17, 21],
    [21, 22],
  ])('%i and %i are brought to one, and merge', async (a, b) => {
    const models = labelled([network(undefined, a), network(undefined, b)]);
    const { tensors } = await prepare(models, () => true, { bn: 'merge' });
    expect(tensors).toHaveLength(8);
    const [p, q] = models.map(({ model: m }) => m.proto.opsetImport[0].version);
    expect(p).toBe(q);
  });

  test('models of one opset stay as they are', () => {
    const models = labelled([network(undefined, 11), network(undefined, 11)]);
    const before = models.map(({ model: m }) => encodeModel(m.proto));
    alignOpsets(models);
    expect(models.map(({ model: m }) => encodeModel(m.proto))).toEqual(before);
  });

  test('Attention changed with opset 24', () => {
    const attention = (version: number) =>
      model(
        {
          node: [node('Attention', ['q', 'q', 'q'], ['y'], {}, { name: 'attend' })],
          input: [value('q', [1, 2, 3, 4])],
          output: [value('y', [1, 2, 3, 4])],
        },
        { opsetImport: [{ version }] },
      );
    expect(() => alignOpsets(labelled([attention(23), attention(24)]))).toThrow(/Attention/);
  });

  test('another domain in two versions', () => {
    const odd = (version: number) =>
      model(
        {
          node: [node('Thing', ['x'], ['y'], {}, { domain: 'ai.odd' })],
          input: [value('x', [1])],
          output: [value('y', [1])],
        },
        { opsetImport: [{ version: 17 }, { domain: 'ai.odd', version }] },
      );
    expect(() => alignOpsets(labelled([odd(1), odd(2)]))).toThrow(/domain/);
  });
});
