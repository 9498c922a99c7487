import fc from 'fast-check';
import onnxProto from 'onnx-proto';
import {
  type DType,
  dtypeByteLength,
  dtypeCode,
  type Model,
  makeTensor,
  parseModel,
  readInlineBytes,
  readTensorBytes,
  readTensorFloat32,
  serializeModel,
  type TensorProto,
  tensorInfo,
  tensorStrings,
} from '../../src/onnx/index.js';
import { bytesOf, concat, field, tensorModel, varint } from './wire.js';

function only(...fields: Uint8Array[]): { model: Model; tensor: TensorProto } {
  const model = parseModel(tensorModel(...fields, field(8, 'w')));
  return { model, tensor: model.proto.graph!.initializer[0] };
}

const read = async (...fields: Uint8Array[]) => {
  const { model, tensor } = only(...fields);
  return new Uint8Array(await readTensorBytes(model, tensor));
};

/** Typed fields: number, dtypes they hold, bytes per value as a varint (0: fixed width). */
const FIELDS: [id: number, width: number, signed: boolean, ...DType[]][] = [
  [4, 0, false, 'float32', 'complex64'],
  [10, 0, false, 'float64', 'complex128'],
  [5, 1, true, 'int8'],
  [5, 1, false, 'uint8', 'bool', 'float8e4m3fn', 'float8e8m0', 'int4', 'uint2', 'float4e2m1'],
  [5, 2, true, 'int16'],
  [5, 2, false, 'uint16', 'float16', 'bfloat16'],
  [5, 4, true, 'int32'],
  [7, 8, true, 'int64'],
  [11, 4, false, 'uint32'],
  [11, 8, false, 'uint64'],
];
const cases = FIELDS.flatMap(([id, width, signed, ...dtypes]) =>
  dtypes.map((dtype) => ({ id, width, signed, dtype })),
);

/** What a typed field holds for raw bytes, by the rules of onnx.proto. */
function packedOf(raw: Uint8Array, width: number, signed: boolean): Uint8Array {
  if (width === 0) return raw;
  const values: number[] = [];
  for (let at = 0; at < raw.length; at += width) {
    let value = 0n;
    for (let i = width - 1; i >= 0; i--) value = (value << 8n) | BigInt(raw[at + i]);
    values.push(...varint(signed ? BigInt.asIntN(8 * width, value) : value));
  }
  return Uint8Array.from(values);
}

describe.each(cases)('$dtype in a typed field', ({ id, width, signed, dtype }) => {
  const raws = fc
    .nat(20)
    .chain((n) =>
      fc
        .uint8Array({ minLength: dtypeByteLength(dtype, n), maxLength: dtypeByteLength(dtype, n) })
        .map((raw) => ({ n, raw })),
    )
    .filter(({ n }) => n > 0);

  test('reads as the raw form, and keeps its form when edited', async () => {
    await fc.assert(
      fc.asyncProperty(raws, fc.integer({ min: 0, max: 255 }), async ({ n, raw }, mask) => {
        const header = concat(field(1, n), field(2, dtypeCode(dtype)));
        const { model, tensor } = only(header, field(id, packedOf(raw, width, signed)));
        expect(tensorInfo(tensor)).toEqual({
          name: 'w',
          dtype,
          shape: [n],
          elements: n,
          byteLength: raw.length,
          place: 'typed',
        });
        expect(new Uint8Array(await readTensorBytes(model, tensor))).toEqual(raw);

        const flip = (bytes: Uint8Array) => bytes.map((byte) => byte ^ mask);
        model.edits.set(tensor, (bytes) => flip(new Uint8Array(bytes)));
        const expected = tensorModel(
          header,
          field(id, packedOf(flip(raw), width, signed)),
          field(8, 'w'),
        );
        // Fields above 8 come after the name.
        const canonical =
          id < 8
            ? expected
            : tensorModel(header, field(8, 'w'), field(id, packedOf(flip(raw), width, signed)));
        expect(await serializeModel(model)).toEqual(canonical);
      }),
      { numRuns: 30 },
    );
  });
});

test('a typed field in pieces, packed and not, is one sequence', async () => {
  const floats = Float32Array.of(1, 2, 3, 4, 5);
  const unpacked = (value: number) =>
    concat(Uint8Array.of((4 << 3) | 5), bytesOf(Float32Array.of(value)));
  const bytes = await read(
    field(1, 5),
    field(2, 1),
    field(4, bytesOf(floats.subarray(0, 2))),
    unpacked(3),
    unpacked(4),
    field(4, bytesOf(floats.subarray(4))),
  );
  expect(bytes).toEqual(bytesOf(floats));
  const ints = await read(
    field(1, 4),
    field(2, 7),
    field(7, 300, -1),
    field(7, Uint8Array.of(5, 6)),
  );
  expect(ints).toEqual(bytesOf(BigInt64Array.of(300n, -1n, 5n, 6n)));
});

test('a tag in more bytes than it needs is a tag', async () => {
  const long = Uint8Array.of(0xa5, 0); // field 4, 32 bits
  const one = bytesOf(Float32Array.of(1));
  const header = concat(field(1, 2), field(2, 1));
  expect(await read(header, long, one, long, one)).toEqual(concat(one, one));
  await expect(read(header, long, one, Uint8Array.of(0), one)).rejects.toMatchObject({
    exitCode: 5,
  });
});

test('a million unpacked elements take little more memory than packed ones', async () => {
  const count = 1_000_000;
  const elements = new Uint8Array(5 * count).fill(0x25);
  const { model, tensor } = only(field(1, count), field(2, 1), elements);
  expect(tensor.floatData).toHaveLength(1);
  const values = await readTensorFloat32(model, tensor);
  expect(values).toHaveLength(count);
  expect(bytesOf(values).every((byte) => byte === 0x25)).toBe(true);
});

test('an independent reader sees edited varints', async () => {
  const { model, tensor } = only(field(1, 3), field(2, 7), field(7, Uint8Array.of(1, 2, 3)));
  const values = BigInt64Array.of(-1n, 2n ** 40n, -(2n ** 63n));
  model.edits.set(tensor, () => bytesOf(values));
  const { graph } = onnxProto.onnx.ModelProto.decode(await serializeModel(model));
  expect(graph?.initializer?.[0].int64Data?.map(String)).toEqual([...values].map(String));
});

test('values in the model itself are there at once', () => {
  const inline = (...fields: Uint8Array[]) => readInlineBytes(only(...fields).tensor);
  expect(inline(field(1, 2), field(2, 3), field(9, 'ab'))).toEqual(Uint8Array.of(97, 98));
  expect(inline(field(1, 1), field(2, 7), field(7, Uint8Array.of(5)))).toEqual(
    bytesOf(BigInt64Array.of(5n)),
  );
  expect(inline(field(1, 0), field(2, 7))).toEqual(new Uint8Array());
  expect(inline(field(1, 1), field(2, 7), field(14, 1))).toBeUndefined();
  expect(inline(field(1, 1), field(2, 7))).toBeUndefined();
});

test('raw data is a view on the file, not a copy', async () => {
  const bytes = tensorModel(field(1, 2), field(2, 3), field(9, Uint8Array.of(7, 8)));
  const model = parseModel(bytes);
  const raw = await readTensorBytes(model, model.proto.graph!.initializer[0]);
  expect(raw.buffer).toBe(bytes.buffer);
  expect(raw.constructor).toBe(Uint8Array);
  const { initializer } = model.proto.graph!;
  const offset = model.rawOffset(initializer[0])!;
  expect([...bytes.subarray(offset, offset + 2)]).toEqual([7, 8]);
  expect(model.rawOffset({ ...initializer[0], rawData: new Uint8Array(2) })).toBeUndefined();
});

test('float32 values are read wherever in the file they begin', async () => {
  // One more byte in front each time: at least three of the four are not aligned.
  for (let shift = 0; shift < 4; shift++) {
    const { model, tensor } = only(
      field(1, 2),
      field(2, 1),
      field(8, new TextEncoder().encode('n'.repeat(shift + 1))),
      field(9, bytesOf(Float32Array.of(1, 2))),
    );
    expect([...(await readTensorFloat32(model, tensor))]).toEqual([1, 2]);
  }
});

test('scalars, empty tensors and strings', async () => {
  const scalar = only(field(2, 1), field(4, bytesOf(Float32Array.of(3))));
  expect(tensorInfo(scalar.tensor)).toMatchObject({ shape: [], elements: 1, place: 'typed' });
  expect([...(await readTensorFloat32(scalar.model, scalar.tensor))]).toEqual([3]);

  const none = only(field(1, 0, 5), field(2, 1));
  expect(tensorInfo(none.tensor)).toMatchObject({
    shape: [0, 5],
    elements: 0,
    place: 'empty',
    byteLength: 0,
  });
  expect(await readTensorFloat32(none.model, none.tensor)).toHaveLength(0);

  const strings = only(field(1, 2), field(2, 8), field(6, 'é', ''));
  expect(tensorInfo(strings.tensor)).toMatchObject({
    dtype: 'string',
    place: 'typed',
    byteLength: 2,
  });
  expect(tensorStrings(strings.tensor)).toEqual(['é', '']);
  await expect(readTensorBytes(strings.model, strings.tensor)).rejects.toThrow('no raw form');
});

test('a type from the future is carried and described, not decoded', async () => {
  const fields = [field(1, 3), field(2, 99), field(9, Uint8Array.of(1, 2, 3, 4, 5))];
  const { model, tensor } = only(...fields);
  expect(tensorInfo(tensor)).toMatchObject({ dtype: 'unknown', byteLength: 5, place: 'raw' });
  await expect(readTensorFloat32(model, tensor)).rejects.toMatchObject({ exitCode: 5 });
});

test('edits see the stored values, and must keep their length', async () => {
  const { model, tensor } = only(field(1, 2), field(2, 3), field(9, Uint8Array.of(1, 2)));
  model.edits.set(tensor, async (raw) => raw.map((byte) => byte * 10));
  expect(await read(field(1, 1), field(2, 3), field(9, Uint8Array.of(1)))).toEqual(
    Uint8Array.of(1),
  );
  expect(await readTensorBytes(model, tensor)).toEqual(Uint8Array.of(10, 20));
  expect(await readTensorBytes(model, tensor)).toEqual(Uint8Array.of(10, 20));
  model.edits.set(tensor, () => Uint8Array.of(1));
  await expect(readTensorBytes(model, tensor)).rejects.toThrow('edit');
});

test('tensors made from bytes are checked', () => {
  const tensor = makeTensor({
    name: 'w',
    dtype: 'int4',
    shape: [3],
    bytes: Uint8Array.of(0x21, 3),
  });
  expect(tensorInfo(tensor)).toMatchObject({
    dtype: 'int4',
    elements: 3,
    byteLength: 2,
    place: 'raw',
  });
  expect(() =>
    makeTensor({ name: 'w', dtype: 'float32', shape: [2], bytes: new Uint8Array(4) }),
  ).toThrow('float32[2]');
});

describe('a tensor that lies is refused, with its name', () => {
  const float = (...parts: Uint8Array[]) => [field(2, 1), ...parts];
  const lies: [string, Uint8Array[]][] = [
    ['negative dims', float(field(1, -1))],
    ['overflowing dims', float(field(1, 2 ** 40, 2 ** 40))],
    ['more than the file has', float(field(1, 2 ** 32), field(9, 'abcd'))],
    ['raw data too long', float(field(1, 1), field(9, '12345678'))],
    ['no values', float(field(1, 2 ** 32))],
    ['too few floats', float(field(1, 2 ** 32), field(4, '1234'))],
    ['a torn float', float(field(1, 1), field(4, '12345'))],
    ['too few varints', [field(2, 7), field(1, 2 ** 32), field(7, Uint8Array.of(1, 2))]],
    ['too many varints', [field(2, 7), field(1, 1), field(7, Uint8Array.of(1, 2))]],
    ['an endless varint', [field(2, 7), field(1, 1), field(7, new Uint8Array(11).fill(0x80))]],
    ['a torn varint', [field(2, 7), field(1, 1), field(7, Uint8Array.of(0x80))]],
    ['values in the wrong field', [field(2, 7), field(1, 1), field(4, '1234')]],
  ];
  test.each(lies)('%s', async (_, fields) => {
    await expect(read(...fields)).rejects.toMatchObject({
      name: 'ResectError',
      exitCode: 5,
      detail: { where: 'tensor "w"' },
    });
  });
});
