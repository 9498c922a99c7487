import fc from 'fast-check';
import { randomFeeds } from '../../src/data/random-feeds.js';
import { normal, sampleIndices, uniform } from '../../src/data/sampling.js';
import { plain, spec } from './helpers.js';

test('samples are distinct, ascending, in range and fixed by the seed', () => {
  fc.assert(
    fc.property(fc.nat(300), fc.nat(300), fc.integer(), (length, samples, seed) => {
      const indices = sampleIndices(length, samples, seed);
      expect(indices.length).toBe(Math.min(length, samples));
      expect(indices).toEqual([...new Set(indices)].sort((a, b) => a - b));
      expect(indices.every((i) => i >= 0 && i < length)).toBe(true);
      expect(sampleIndices(length, samples, seed)).toEqual(indices);
    }),
  );
  expect(sampleIndices(4, undefined, 0)).toEqual([0, 1, 2, 3]);
  expect(sampleIndices(1000, 10, 1)).not.toEqual(sampleIndices(1000, 10, 2));
});

test('every subset is equally likely', () => {
  const counts = new Map<string, number>();
  for (let seed = 0; seed < 6000; seed++) {
    const key = sampleIndices(4, 2, seed).join();
    counts.set(key, (counts.get(key) ?? 0) + 1);
  }
  expect(counts.size).toBe(6);
  // 1000 expected, standard deviation 29.
  for (const count of counts.values()) expect(Math.abs(count - 1000)).toBeLessThan(150);
});

test('uniform and normal numbers have their moments', () => {
  const random = uniform(3);
  const values = Array.from({ length: 20000 }, random);
  expect(values.every((v) => v >= 0 && v < 1)).toBe(true);
  expect(Math.abs(values.reduce((a, b) => a + b) / 20000 - 0.5)).toBeLessThan(0.01);
  const gauss = Array.from({ length: 20000 }, normal(random));
  expect(Math.abs(gauss.reduce((a, b) => a + b) / 20000)).toBeLessThan(0.03);
  expect(Math.abs(gauss.reduce((a, b) => a + b * b, 0) / 20000 - 1)).toBeLessThan(0.05);
});

describe('random feeds', () => {
  test('of an image model', () => {
    const specs = [spec('image', 'float32', ['n', 1, '', 8])];
    const { image } = randomFeeds(specs, 2, 5);
    expect(image.dims).toEqual([2, 1, 224, 8]);
    expect(image).toEqual(randomFeeds(specs, 2, 5).image);
    expect(image.data[0]).not.toBe(image.data[1]);
    expect(randomFeeds(specs, 2, 6).image.data[0]).not.toBe(image.data[0]);
  });

  test('of a language model with masks, positions and an empty cache', () => {
    const specs = [
      spec('past_key_values.0.key', 'float32', ['batch', 2, 'past', 4]),
      spec('attention_mask', 'int64', ['batch', 'past + seq']),
      spec('position_ids', 'int64', ['batch', 'seq']),
      spec('input_ids', 'int64', ['batch', 'seq']),
      spec('use_cache_branch', 'bool', [1]),
    ];
    const feeds = randomFeeds(specs, 2, 0);
    expect(feeds.input_ids.dims).toEqual([2, 128]);
    expect(Array.from(feeds.input_ids.data, Number).every((id) => id >= 0 && id < 16)).toBe(true);
    expect(feeds['past_key_values.0.key'].dims).toEqual([2, 2, 0, 4]);
    expect(feeds.attention_mask).toEqual({
      dtype: 'int64',
      dims: [2, 128],
      data: new BigInt64Array(256).fill(1n),
    });
    expect(plain(feeds.position_ids).data.slice(126, 130)).toEqual([126, 127, 0, 1]);
    expect(plain(feeds.use_cache_branch)).toEqual({ dtype: 'bool', dims: [1], data: [0] });
  });

  test('a recurrent model with a state and a sampling rate', () => {
    const feeds = randomFeeds(
      [
        spec('input', 'float32', ['', '']),
        spec('state', 'float32', [2, '', 128]),
        spec('sr', 'int64', []),
      ],
      3,
      0,
    );
    expect([feeds.input.dims, feeds.state.dims]).toEqual([
      [3, 512],
      [2, 3, 128],
    ]);
    expect(plain(feeds.sr)).toEqual({ dtype: 'int64', dims: [], data: [16000] });
  });

  test('frozen sizes are kept, and types without data are refused', () => {
    const feeds = randomFeeds([spec('x', 'uint8', [4, 2]), spec('h', 'float16', [1, '', 3])], 9, 0);
    expect([feeds.x.dims, feeds.h.dims]).toEqual([
      [4, 2],
      [1, 4, 3],
    ]);
    expect(() => randomFeeds([spec('s', 'string', [1])], 1, 0)).toThrow(/of this type/);
  });
});
