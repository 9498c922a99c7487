import { alignOpsets } from '../../../../src/methods/merge/pair/align-opsets.js';
import { pairModels } from '../../../../src/methods/merge/pair/pair.js';
import {
  encodeModel,
  type GraphProto,
  type ModelProto,
  makeTensor,
  parseModel,
  type TensorProto,
} from '../../../../src/onnx/index.js';
import { floats, graph, ints, model, node, value, weight } from '../../../support/protos.js';

const labelled = (protos: ModelProto[]) =>
  protos.map((proto, i) => ({ model: parseModel(encodeModel(proto)), label: 'ABCDE'[i] }));

const pair = (...protos: ModelProto[]) => pairModels(labelled(protos));

/** A model from `x [batch, 4]` to `y [batch, 4]`. */
const small = (parts: Partial<GraphProto>, opset = 17) =>
  model(
    { input: [value('x', ['batch', 4])], output: [value('y', ['batch', 4])], ...parts },
    { opsetImport: [{ version: opset }] },
  );

/** Expects a refusal, exit 5, whose message, place, values or hint match. */
async function refused(work: Promise<unknown>, ...says: RegExp[]): Promise<void> {
  const error = await work.then(
    () => undefined,
    (e) => e,
  );
  expect(error).toMatchObject({ exitCode: 5 });
  const { where, expected, got, hint } = error.detail;
  const text = [error.message, where, expected, got, hint].join('\n');
  for (const pattern of says) expect(text).toMatch(pattern);
}

const fill = (name: string, v: number, shape = [4]) =>
  floats(name, shape, new Float32Array(shape.reduce((a, b) => a * b, 1)).fill(v));

describe('long graphs', () => {
  test('20,000 nodes with a weight each', async () => {
    const count = 20_000;
    const make = () =>
      small({
        node: Array.from({ length: count }, (_, i) =>
          node('Add', [i ? `v${i}` : 'x', `w${i}`], [i + 1 < count ? `v${i + 1}` : 'y']),
        ),
        initializer: Array.from({ length: count }, (_, i) => fill(`w${i}`, i)),
      });
    expect((await pair(make(), make())).tensors).toHaveLength(count);
  });

  test('20,000 copies by Identity, each read', async () => {
    const count = 20_000;
    const make = () =>
      small({
        node: [
          ...Array.from({ length: count }, (_, i) =>
            node('Identity', [i ? `c${i}` : 'w'], [`c${i + 1}`]),
          ).reverse(),
          ...Array.from({ length: 1000 }, (_, i) =>
            node('Add', [i ? `v${i}` : 'x', `c${i * 20 + 1}`], [i < 999 ? `v${i + 1}` : 'y']),
          ),
        ],
        initializer: [weight('w', [4])],
      });
    expect((await pair(make(), make())).tensors).toHaveLength(1);
  });
});

describe('constants', () => {
  test('an output that is a constant must be equal', async () => {
    const make = (v: number) =>
      small({
        node: [node('Relu', ['x'], ['y'])],
        initializer: [fill('classes', v)],
        output: [value('y', ['batch', 4]), value('classes', [4])],
      });
    expect((await pair(make(1), make(1))).tensors).toEqual([]);
    await refused(pair(make(1), make(2)), /classes/, /differ/);
  });

  test('lists of numbers must be equal, and may be stored as tensors', async () => {
    const list = (v: number): ModelProto => {
      const constant = node('Constant', [], ['c']);
      constant.attribute = [{ name: 'value_floats', type: 6, floats: [v, v, v, v] }];
      return small({ node: [constant, node('Add', ['x', 'c'], ['y'], {}, { name: 'add' })] });
    };
    const stored = small({ node: [node('Add', ['x', 'c'], ['y'])], initializer: [fill('c', 1)] });
    expect((await pair(list(1), list(1))).tensors).toEqual([]);
    expect((await pair(list(1), stored)).tensors).toEqual([]);
    await refused(pair(list(1), list(2)), /add/, /^(?!.*control-flow body differs)/);
  });

  test('a variance that is read as a scale, too, stays one', async () => {
    const make = () =>
      small({
        node: [node('BatchNormalization', ['x', 'one', 'zero', 'zero', 'one'], ['y'])],
        initializer: [fill('one', 1), fill('zero', 0)],
      });
    const { tensors } = await pair(make(), make());
    expect(tensors.map(({ name, role }) => [name, role])).toEqual([
      ['one', 'variance'],
      ['zero', 'weight'],
    ]);
  });

  test('tensors are shared alike, but for those that are not merged', async () => {
    const make = (second: string, stored: (name: string) => TensorProto) =>
      small({
        node: [
          node('Unsqueeze', ['x', 'a'], ['h']),
          node('Squeeze', ['h', second], ['i']),
          node('Mul', ['i', 'scale'], ['y']),
        ],
        initializer: [stored('a'), ...(second === 'a' ? [] : [stored(second)]), fill('scale', 2)],
      });
    const axes = (name: string) => ints(name, 0);
    expect((await pair(make('a', axes), make('b', axes))).tensors).toHaveLength(1);
    expect((await pair(make('b', axes), make('a', axes))).tensors).toHaveLength(1);

    const scaled = (second: string) =>
      small({
        node: [
          node('Mul', ['x', 'a'], ['h']),
          node('Mul', ['h', second], ['y'], {}, { name: 'm' }),
        ],
        initializer: [fill('a', 2), ...(second === 'a' ? [] : [fill(second, 3)])],
      });
    await refused(pair(scaled('a'), scaled('b')), /share/, /tensor a, node m/, /"b" of B/);
    await refused(pair(scaled('b'), scaled('a')), /share/, /tensor b, node m/, /"a" of B/);
    // Whoever keeps the values of the first model does not care.
    const [a, b] = labelled([scaled('b'), scaled('a')]);
    const { tensors } = await pairModels([a, b], (name) => name !== 'b');
    expect(tensors.map(({ name }) => name)).toEqual(['a']);
  });

  test('texts and booleans are compared', async () => {
    const make = (text: string) => {
      const labels = { name: 't', dims: [1], dataType: 8, stringData: [Buffer.from(text)] };
      return small({
        node: [node('Relu', ['x'], ['y']), node('Concat', ['t', 't'], ['z'], { axis: 0 })],
        initializer: [labels],
        output: [value('y', ['batch', 4]), value('z', [2], 'string')],
      });
    };
    expect((await pair(make('cat'), make('cat'))).tensors).toEqual([]);
    await refused(pair(make('cat'), make('dog')), /tensor t/);
  });

  test('a weight outside that a branch reads may differ; what it puts out is named', async () => {
    const make = (v: number) => {
      const branch = () =>
        graph({ node: [node('Add', ['x', 'w'], ['z'])], output: [value('z', ['batch', 4])] });
      return small({
        node: [node('If', ['is'], ['y'], { then_branch: branch(), else_branch: branch() })],
        initializer: [
          fill('w', v),
          makeTensor({ name: 'is', dtype: 'bool', shape: [], bytes: Uint8Array.of(1) }),
        ],
      });
    };
    const { tensors } = await pair(make(1), make(2));
    expect(tensors.map(({ name, node: n, input }) => [name, n.opType, input])).toEqual([
      ['w', 'Add', 1],
    ]);
  });

  test('a weight outside that a branch puts out must be equal', async () => {
    const make = (v: number) => {
      const branch = () =>
        graph({ node: [node('Identity', ['w'], ['z'])], output: [value('z', [4])] });
      return small({
        node: [
          node('If', ['is'], ['b'], { then_branch: branch(), else_branch: branch() }),
          node('Add', ['x', 'b'], ['y']),
        ],
        initializer: [
          fill('w', v),
          makeTensor({ name: 'is', dtype: 'bool', shape: [], bytes: Uint8Array.of(1) }),
        ],
      });
    };
    expect((await pair(make(1), make(1))).tensors).toEqual([]);
    await refused(pair(make(1), make(2)), /tensor w/);
  });
});

describe('graphs', () => {
  const two = (a: string, b: string, names = ['p', 'q']) =>
    small({
      node: [node('Sub', [a, b], ['y'], {}, { name: 'minus' })],
      input: names.map((name) => value(name, ['batch', 4])),
    });

  test('inputs of the same names are not exchanged', async () => {
    await refused(pair(two('p', 'q'), two('q', 'p')), /minus/, /the input "p"/, /the input "q"/);
  });

  test('inputs of other names are paired as they are read', async () => {
    expect((await pair(two('p', 'q'), two('s', 'r', ['r', 's']))).tensors).toEqual([]);
  });

  test('one input in the place of two', async () => {
    await refused(pair(two('p', 'q'), two('p', 'p')), /minus/);
  });

  test('a scan body with inputs the other way round', async () => {
    const make = (a: string, b: string) => {
      const body = graph({
        node: [node('Sub', [a, b], ['t'], {}, { name: 'inner' }), node('Relu', ['t'], ['u'])],
        input: [value('s', [4]), value('e', [4])],
        output: [value('t', [4]), value('u', [4])],
      });
      return small({
        node: [
          node(
            'Scan',
            ['first', 'x'],
            ['last', 'y'],
            { body, num_scan_inputs: 1 },
            { name: 'scan' },
          ),
        ],
        initializer: [fill('first', 1)],
      });
    };
    expect((await pair(make('s', 'e'), make('s', 'e'))).tensors).toHaveLength(1);
    await refused(pair(make('s', 'e'), make('e', 's')), /scan|inner/);
  });

  test('a layer more at the end', async () => {
    const make = (more: boolean) =>
      small({
        node: [
          node('MatMul', ['x', 'w'], [more ? 'h' : 'y']),
          ...(more ? [node('Softmax', ['h'], ['y'], {}, { name: 'sm' })] : []),
        ],
        initializer: [weight('w', [4, 4])],
      });
    await refused(pair(make(false), make(true)), /Softmax "sm" in B/, /end of the graph in A/);
  });

  test('outputs in another order, and of another type', async () => {
    const make = (order: string[]) =>
      small({
        node: [node('Relu', ['x'], ['r']), node('Tanh', ['x'], ['t'])],
        output: order.map((name) => value(name, ['batch', 4])),
      });
    await refused(pair(make(['r', 't']), make(['t', 'r'])), /Relu "r" in A/, /Tanh "t" in B/);
    const typed = (dtype: 'float32' | 'float64') =>
      small({ node: [node('Relu', ['x'], ['y'])], output: [value('y', ['batch', 4], dtype)] });
    await refused(pair(typed('float32'), typed('float64')), /output y/, /float64/);
  });

  test('an explicit fill of zeros is the default', async () => {
    const make = (attributes: Parameters<typeof node>[3]) =>
      small({
        node: [
          node('ConstantOfShape', ['four'], ['c'], attributes),
          node('Add', ['x', 'c'], ['y'], {}, { name: 'add' }),
        ],
        initializer: [ints('four', 4)],
      });
    const zero = make({ value: fill('', 0, [1]) });
    expect((await pair(make({}), zero)).tensors).toEqual([]);
    await refused(pair(make({}), make({ value: fill('', 1, [1]) })), /ConstantOfShape "c"/);
  });

  test('heads are told from precision and from kernels', async () => {
    const make = (dtype: 'float32' | 'float16', shape: number[]) =>
      small({
        node: [node('Conv', ['x', 'w'], ['y'], {}, { name: 'last' })],
        initializer: [
          makeTensor({
            name: 'w',
            dtype,
            shape,
            bytes: new Uint8Array(shape.reduce((a, b) => a * b, 1) * (dtype === 'float32' ? 4 : 2)),
          }),
        ],
        input: [value('x', ['batch', 3, 8, 8])],
        output: [value('y', ['batch', 'c', 'h', 'w'])],
      });
    const plain = make('float32', [5, 3, 1, 1]);
    await refused(pair(plain, make('float16', [5, 3, 1, 1])), /^The models do not have the same/);
    await refused(pair(plain, make('float32', [5, 3, 3, 3])), /^The models do not have the same/);
    await refused(pair(plain, make('float32', [7, 3, 1, 1])), /same classes/, /--exclude/);
  });
});

describe('refusals', () => {
  test('sparse initializers', async () => {
    const make = () =>
      small({
        node: [node('Add', ['x', 's'], ['y'])],
        sparseInitializer: [{ values: weight('s', [1]), indices: ints('', 0), dims: [4] }],
      });
    await refused(pair(make(), make()), /^A constant is stored as a sparse tensor/, /A: tensor s/);
  });

  test.each(['float8e4m3fn', 'int4'] as const)('%s weights', async (dtype) => {
    const make = () =>
      small({
        node: [node('Cast', ['w'], ['c'], { to: 1 }), node('Add', ['x', 'c'], ['y'])],
        initializer: [
          makeTensor({
            name: 'w',
            dtype,
            shape: [4],
            bytes: new Uint8Array(dtype === 'int4' ? 2 : 4),
          }),
        ],
      });
    await refused(pair(make(), make()), /A: tensor w/, new RegExp(dtype));
  });

  test('Dropout and BatchNormalization in training', async () => {
    const bool = (v: number) =>
      makeTensor({ name: 'train', dtype: 'bool', shape: [], bytes: Uint8Array.of(v) });
    const dropout = (v: number) =>
      small({
        node: [
          node('Identity', ['train'], ['copy']),
          node('Dropout', ['x', '', 'copy'], ['y'], {}, { name: 'drop' }),
        ],
        initializer: [bool(v)],
      });
    expect((await pair(dropout(0), dropout(0))).tensors).toEqual([]);
    await refused(pair(dropout(1), dropout(1)), /A: node drop \(Dropout\)/);
    const outputs = small({
      node: [node('BatchNormalization', ['x', 's', 's', 's', 's'], ['y', 'mean', 'var'])],
      initializer: [fill('s', 1)],
    });
    await refused(pair(outputs, outputs), /training mode/, /BatchNormalization/);
  });

  test('a cycle, also of copies alone', async () => {
    const ring = (op: string) => small({ node: [node(op, ['b'], ['y']), node(op, ['y'], ['b'])] });
    await refused(pair(ring('Relu'), ring('Relu')), /cycle/);
    await refused(pair(ring('Identity'), ring('Identity')), /cycle/);
  });
});

describe('opsets', () => {
  test('what cannot be brought to the other opset', () => {
    const relu = (opset: number) => small({ node: [node('Relu', ['x'], ['y'])] }, opset);
    expect(() => alignOpsets(labelled([relu(5), relu(17)]))).toThrow(/cannot be brought to opset/);
  });

  test('what changed on the way names its node and the model', async () => {
    const grouped = (opset: number) =>
      small(
        {
          node: [
            node('GroupNormalization', ['x', 's', 's'], ['y'], { num_groups: 2 }, { name: 'gn' }),
          ],
          initializer: [fill('s', 1, [2])],
        },
        opset,
      );
    const work = async () => alignOpsets(labelled([grouped(18), grouped(21)]));
    await refused(work(), /A: node gn/, /A: 18, B: 21/, /same opset/, /^(?!.*int4)/);
  });

  test('the largest import and IR version beyond 21', () => {
    const relu = (opset: number) => small({ node: [node('Relu', ['x'], ['y'])] }, opset);
    const models = labelled([relu(13), relu(23), relu(22)]);
    models[2].model.proto.irVersion = 11;
    alignOpsets(models);
    for (const { model: m } of models) {
      expect(m.proto.opsetImport).toEqual([{ domain: '', version: 23 }]);
      expect(m.proto.irVersion).toBe(11);
    }
  });
});
