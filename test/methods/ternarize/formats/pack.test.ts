import fc from 'fast-check';
import {
  codeTable,
  eightBits,
  fourBits,
  narrowest,
  type Packing,
  packCodes,
  trits,
  twoBits,
  unpackCodes,
} from '../../../../src/methods/ternarize/formats/pack.js';

const eight = [1, 0, -1, 0, 1, 1, -1, -1];
const codes = Int8Array.from([...eight, ...new Array(24).fill(0)]);
const row = { rows: 1, cols: 32 };

test('golden bytes: two bits, lowest first', () => {
  expect([...packCodes(codes, row, twoBits)]).toEqual([155, 95, 170, 170, 170, 170, 170, 170]);
});

test('golden bytes: five trits to a byte', () => {
  expect([...packCodes(codes, row, trits)]).toEqual([194, 110, 121, 121, 121, 121, 121]);
});

test('four bits, lowest first; the fourth level; padding with codes 0', () => {
  const three = Int8Array.of(1, -2, -1);
  const padded = { rows: 1, cols: 3, width: 8 };
  expect([...packCodes(three, padded, fourBits)]).toEqual([0x69, 0x87, 0x88, 0x88]);
  expect([...packCodes(three, padded, twoBits)]).toEqual([0b10_01_00_11, 0b10_10_10_10]);
});

test('the table has the codes of every byte', () => {
  const table = codeTable(trits);
  expect(table).toHaveLength(243 * 5);
  expect([...table.subarray(194 * 5, 195 * 5)]).toEqual([1, 0, -1, 0, 1]);
  expect([...codeTable(twoBits).subarray(155 * 4, 156 * 4)]).toEqual([1, 0, -1, 0]);
});

describe.each<[string, Packing, number]>([
  ['two bits', twoBits, 1],
  ['four bits', fourBits, 7],
  ['trits', trits, 1],
])('%s', (_, packing, high) => {
  test('come back as they were, each row in bytes of its own', () => {
    const matrix = fc
      .record({ rows: fc.integer({ min: 0, max: 9 }), cols: fc.integer({ min: 1, max: 70 }) })
      .chain(({ rows, cols }) =>
        fc.record({
          rows: fc.constant(rows),
          cols: fc.constant(cols),
          block: fc.constantFrom(1, 16, 32, 128),
          values: fc.int8Array({
            min: packing.low,
            max: high,
            minLength: rows * cols,
            maxLength: rows * cols,
          }),
        }),
      );
    fc.assert(
      fc.property(matrix, ({ rows, cols, block, values }) => {
        const shape = { rows, cols, width: Math.ceil(cols / block) * block };
        const packed = packCodes(values, shape, packing);
        expect(packed).toHaveLength(rows * Math.ceil(shape.width / packing.perByte));
        expect(unpackCodes(packed, shape, packing)).toEqual(values);
      }),
    );
  });

  test('codes out of range, and bytes of another length, are refused', () => {
    const shape = { rows: 1, cols: 1 };
    for (const code of [high + 1, packing.low - 1])
      expect(() => packCodes(Int8Array.of(code), shape, packing)).toThrow('no digit');
    expect(() => packCodes(Int8Array.of(0, 0), shape, packing)).toThrow('2 codes');
    expect(() => unpackCodes(new Uint8Array(2), shape, packing)).toThrow('not as many');
  });
});

test('a byte that is no five trits is refused', () => {
  expect(() => unpackCodes(Uint8Array.of(243), { rows: 1, cols: 5 }, trits)).toThrow(
    'does not hold',
  );
});

test('eight bits: bytes from the zero point 128 up', () => {
  const ends = Int8Array.of(-128, -1, 0, 127);
  const packed = packCodes(ends, { rows: 1, cols: 4 }, eightBits);
  expect([...packed]).toEqual([0, 127, 128, 255]);
  expect(unpackCodes(packed, { rows: 1, cols: 4 }, eightBits)).toEqual(ends);
});

test('the narrowest packing that holds all codes', () => {
  expect(narrowest(Int8Array.of(-1, 1))).toBe(trits);
  expect(narrowest(Int8Array.of(-2, 1))).toBe(twoBits);
  expect(narrowest(Int8Array.of(2))).toBe(fourBits);
  expect(narrowest(Int8Array.of(-8, 7))).toBe(fourBits);
  expect(narrowest(Int8Array.of(8))).toBe(eightBits);
  expect(narrowest(Int8Array.of(-9))).toBe(eightBits);
});
