import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import onnxProto from 'onnx-proto';
import { AttributeType, encodeModel, makeTensor, parseModel } from '../../src/onnx/index.js';
import { realModels, smallModel } from './models.js';
import { bytesOf, concat, field, fieldsOf, float, message, tensorModel } from './wire.js';

const rewritten = (bytes: Uint8Array) => encodeModel(parseModel(bytes).proto);

/** What an independent reader makes of a model, as text. It knows ONNX up to 1.10. */
function independently(bytes: Uint8Array): string {
  const { ModelProto } = onnxProto.onnx;
  const options = { longs: String, bytes: String, defaults: true };
  return JSON.stringify(ModelProto.toObject(ModelProto.decode(bytes), options));
}

test.each(realModels)('%s is rewritten byte by byte', (_, path) => {
  const bytes = readFileSync(path);
  expect(Buffer.compare(rewritten(bytes), bytes)).toBe(0);
});

/** The same message with its fields in another order, and those of some messages in it too. */
function shuffled(bytes: Uint8Array, random: () => number, inner: Inner): Uint8Array {
  const rank = new Map<number, number>();
  const fields = fieldsOf(bytes).map(({ id, bytes, content }) => {
    if (!rank.has(id)) rank.set(id, random());
    return { id, bytes: inner[id] ? field(id, shuffled(content, random, inner[id])) : bytes };
  });
  return concat(
    ...fields.sort((a, b) => rank.get(a.id)! - rank.get(b.id)!).map(({ bytes }) => bytes),
  );
}
interface Inner {
  [id: number]: Inner;
}

test('fields in another order mean the same, to an independent reader', () => {
  const original = readFileSync(smallModel);
  const attribute: Inner = { 5: { 5: {} } };
  const graph: Inner = { 7: { 1: attribute, 5: {}, 11: { 2: { 1: {} } }, 12: {} }, 8: {} };
  fc.assert(
    fc.property(fc.infiniteStream(fc.double({ min: 0, max: 1, noNaN: true })), (stream) => {
      const bytes = shuffled(original, () => stream.next().value ?? 0, graph);
      expect(Buffer.compare(rewritten(bytes), original)).toBe(0);
    }),
    { numRuns: 10 },
  );
  expect(independently(rewritten(original))).toBe(independently(original));
});

test.each(realModels)('%s means the same to an independent reader', (_, path) => {
  const bytes = readFileSync(path);
  expect(independently(rewritten(bytes)) === independently(bytes)).toBe(true);
});

test('plain literals encode, as an independent reader sees them', () => {
  const bytes = encodeModel({
    irVersion: 10,
    opsetImport: [{ domain: '', version: 21 }],
    graph: {
      node: [
        {
          opType: 'Slice',
          input: ['x'],
          output: ['y'],
          attribute: [
            { name: 'ends', type: AttributeType.ints, ints: [2n ** 63n - 1n, 3] },
            { name: 'alpha', type: AttributeType.float, f: 0.5 },
            { name: 'zero', type: AttributeType.int, i: 0 },
          ],
        },
      ],
      initializer: [
        makeTensor({ name: 'w', dtype: 'int8', shape: [2], bytes: Uint8Array.of(1, 255) }),
      ],
      input: [
        {
          name: 'x',
          type: { tensorType: { elemType: 1, shape: { dim: [{ dimParam: 'n' }, {}] } } },
        },
      ],
      output: [],
      valueInfo: [],
    },
  });
  const { graph } = onnxProto.onnx.ModelProto.decode(bytes);
  const attributes = graph?.node?.[0].attribute;
  expect(attributes?.[0].ints?.map(String)).toEqual(['9223372036854775807', '3']);
  expect(attributes?.[1].f).toBe(0.5);
  expect(Object.hasOwn(attributes?.[2] ?? {}, 'i')).toBe(true);
  expect(graph?.initializer?.[0]).toMatchObject({ name: 'w', dataType: 3 });
  expect(graph?.input?.[0].type?.tensorType?.shape?.dim?.[0].dimParam).toBe('n');
});

test('tensors can be replaced while encoding', () => {
  const { proto } = parseModel(
    tensorModel(field(1, 2), field(2, 3), field(8, 'w'), field(9, 'ab')),
  );
  const replaced = encodeModel(proto, (tensor) => ({ ...tensor, rawData: Uint8Array.of(1, 2) }));
  expect(replaced).toEqual(
    tensorModel(field(1, 2), field(2, 3), field(8, 'w'), field(9, Uint8Array.of(1, 2))),
  );
});

test('numbers that are no exact integers are not written as integers', () => {
  const model = (i: number) =>
    encodeModel({
      opsetImport: [],
      trainingInfo: [],
      graph: {
        node: [{ opType: 'X', input: [], output: [], attribute: [{ name: 'a', i }] }],
        initializer: [],
        input: [],
        output: [],
        valueInfo: [],
      },
    });
  expect(() => model(2 ** 60)).toThrow('bigint');
  expect(() => model(0.5)).toThrow('bigint');
});

/** One field of each number in the schema, by hand from onnx.proto, in canonical order. */
describe('every field of IR 14', () => {
  const entry = concat(field(1, 'key'), field(2, 'value'));
  const shape = concat(
    message(1, field(1, 0), field(3, 'N')),
    message(1, field(2, 'batch')),
    message(1),
  );
  const tensorType = concat(field(1, 26), field(2, shape));
  const type = concat(field(1, tensorType), field(6, 'IMAGE'));
  const types = [
    type,
    message(4, message(1, type)),
    message(5, field(1, 8), field(2, type)),
    message(7, field(1, 'domain'), field(2, 'name')),
    message(8, tensorType),
    message(9, message(1, type)),
  ];
  const valueInfos = types.map((one) =>
    concat(field(1, 'x'), field(2, one), field(3, 'doc'), field(4, entry)),
  );
  const tensor = concat(
    field(1, 2, 3),
    field(2, 1),
    message(3, field(1, 0), field(2, -1)),
    field(4, bytesOf(Float32Array.of(1, -0, Number.NaN))),
    field(5, Uint8Array.of(1, 0xac, 2)),
    field(6, 'a', 'é'),
    field(7, Uint8Array.of(0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1)),
    field(8, 'weight'),
    field(9, 'raw'),
    field(10, bytesOf(Float64Array.of(Math.PI))),
    field(11, Uint8Array.of(0x80, 1)),
    field(12, 'doc'),
    field(13, entry),
    field(14, 1),
    field(16, entry),
  );
  const sparse = concat(field(1, tensor), field(2, tensor), field(3, 4));
  const graph = concat(field(2, 'inner'), field(5, tensor));
  const attribute = concat(
    field(1, 'a'),
    float(2, -0),
    field(3, -(2n ** 63n)),
    field(4, Uint8Array.of(0xff, 0)),
    field(5, tensor),
    field(6, graph),
    float(7, 0.1, Number.POSITIVE_INFINITY),
    field(8, 2n ** 63n - 1n, 0, -1, 2 ** 53),
    field(9, 's', ''),
    field(10, tensor),
    field(11, graph),
    field(13, 'doc'),
    field(14, type),
    field(15, type),
    field(20, 2),
    field(21, 'ref'),
    field(22, sparse),
    field(23, sparse),
  );
  const sharding = concat(
    field(1, 't'),
    field(2, 0, 1),
    message(3, field(1, -1), field(2, 2, 3)),
    message(4, field(1, 0), message(2, field(1, 8), field(3, 4)), message(2, field(2, 'n'))),
  );
  const node = concat(
    field(1, 'x', ''),
    field(2, 'y'),
    field(3, 'node'),
    field(4, 'Add'),
    field(5, attribute),
    field(6, 'doc'),
    field(7, ''),
    field(8, 'overload'),
    field(9, entry),
    message(10, field(1, 'config'), field(2, sharding), field(3, 7)),
  );
  const annotation = concat(field(1, 't'), field(2, entry));
  const mainGraph = concat(
    field(1, node),
    field(2, 'main'),
    field(5, tensor),
    field(10, 'doc'),
    ...valueInfos.map((info) => field(11, info)),
    field(12, valueInfos[0]),
    field(13, valueInfos[0]),
    field(14, annotation),
    field(15, sparse),
    field(16, entry),
  );
  const opset = concat(field(1, 'ai.onnx'), field(2, 25));
  const fn = concat(
    field(1, 'f'),
    field(4, 'a', 'b'),
    field(5, 'c'),
    field(6, 'alpha'),
    field(7, node),
    field(8, 'doc'),
    field(9, opset),
    field(10, 'local'),
    field(11, attribute),
    field(12, valueInfos[0]),
    field(13, 'overload'),
    field(14, entry),
  );
  const model = concat(
    field(1, 14),
    field(2, 'producer'),
    field(3, '1.0'),
    field(4, 'domain'),
    field(5, 2n ** 62n + 1n),
    field(6, 'doc'),
    field(7, mainGraph),
    field(8, opset),
    field(14, entry),
    message(20, field(1, graph), field(2, graph), field(3, entry), field(4, entry)),
    field(25, fn),
    message(26, field(1, 'config'), field(2, 2), field(3, 'CPU', 'GPU')),
  );

  test('is rewritten byte by byte', () => {
    expect(Buffer.from(rewritten(model)).toString('hex')).toBe(Buffer.from(model).toString('hex'));
  });

  test('is known: nothing of it is kept as unknown', () => {
    const unknown = JSON.stringify(parseModel(model).proto, (key, value) =>
      typeof value === 'bigint' ? String(value) : key === '$unknowns' && value ? 'FOUND' : value,
    );
    expect(unknown).not.toContain('FOUND');
  });

  test('has the names and values of onnx.proto', () => {
    const { proto } = parseModel(model);
    expect(proto).toMatchObject({
      irVersion: 14,
      producerName: 'producer',
      modelVersion: 2n ** 62n + 1n,
      opsetImport: [{ domain: 'ai.onnx', version: 25 }],
      metadataProps: [{ key: 'key', value: 'value' }],
      configuration: [{ name: 'config', numDevices: 2, device: ['CPU', 'GPU'] }],
    });
    expect(proto.graph?.node[0]).toMatchObject({
      input: ['x', ''],
      opType: 'Add',
      domain: '',
      overload: 'overload',
      deviceConfigurations: [
        {
          pipelineStage: 7,
          shardingSpec: [
            {
              indexToDeviceGroupMap: [{ key: -1, value: [2, 3] }],
              shardedDim: [
                { axis: 0, simpleSharding: [{ dimValue: 8, numShards: 4 }, { dimParam: 'n' }] },
              ],
            },
          ],
        },
      ],
    });
    expect(proto.graph?.node[0].attribute[0]).toMatchObject({
      f: -0,
      i: -(2n ** 63n),
      s: Uint8Array.of(0xff, 0),
      ints: [2n ** 63n - 1n, 0, -1, 2n ** 53n],
      floats: [Math.fround(0.1), Number.POSITIVE_INFINITY],
      refAttrName: 'ref',
    });
    expect(proto.graph?.input[0].type?.tensorType?.shape?.dim).toMatchObject([
      { dimValue: 0, denotation: 'N' },
      { dimParam: 'batch' },
      {},
    ]);
    expect(proto.graph?.input[2].type?.mapType?.keyType).toBe(8);
    expect(proto.functions?.[0]).toMatchObject({ name: 'f', attribute: ['alpha'], output: ['c'] });
  });

  test('keeps unknown fields at every level, of every wire type', () => {
    const unknown = concat(
      field(100, 1, 'text'),
      float(101, 1),
      Uint8Array.of(0xb1, 6, 1, 2, 3, 4, 5, 6, 7, 8), // field 102, 64 bits
      Uint8Array.of(0xbb, 6, 8, 1, 0xbc, 6), // field 103, a group
    );
    const bytes = concat(
      field(1, 14),
      message(
        7,
        message(1, message(5, field(1, 'a'), unknown), unknown),
        message(5, field(8, 'w'), unknown),
        message(11, message(2, message(1, message(2, message(1, unknown), unknown)), unknown)),
        unknown,
      ),
      message(8, unknown),
      message(25, field(1, 'f'), unknown),
      unknown,
    );
    expect(rewritten(bytes)).toEqual(bytes);
    const copy = parseModel(bytes).proto;
    expect(encodeModel({ ...copy, graph: { ...copy.graph! } })).toEqual(bytes);
  });
});
