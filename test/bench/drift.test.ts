import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { openDataset } from '../../src/data/index.js';
import { scratch, spec } from '../data/helpers.js';
import { inRepository } from '../support/cli.js';

interface Images {
  dims: number[];
  data: Uint8Array;
}

interface Drift {
  severities: Record<string, number[]>;
  drift(images: Images, corruption: string, severity: number, seed: number): Images;
  writeDrifted(
    card: string,
    folder: string,
    corruption: string,
    severity: number,
    seed: number,
  ): Promise<string>;
}

// The benchmarks are plain JavaScript, without types.
const script = new URL('../../bench/support/drift.js', import.meta.url).href;
const { severities, drift, writeDrifted }: Drift = await import(script);

const { folder } = scratch();

const images = (count: number, side: number, pixel: (i: number) => number): Images => ({
  dims: [count, 1, side, side],
  data: Uint8Array.from({ length: count * side * side }, (_, i) => pixel(i)),
});
const sum = (values: Uint8Array) => values.reduce((total, value) => total + value, 0);
/** Bytes in a pattern without symmetry. */
const uneven = images(3, 16, (i) => (i * i * 31 + 7 * i) % 256);

test.each(Object.keys(severities))('%s is fixed by the seed and leaves its input alone', (name) => {
  const before = uneven.data.slice();
  for (const severity of [1, 2, 3, 4, 5]) {
    const once = drift(uneven, name, severity, 4);
    expect(once.dims).toEqual(uneven.dims);
    expect(once).toEqual(drift(uneven, name, severity, 4));
    expect(once.data).not.toEqual(before);
  }
  expect(uneven.data).toEqual(before);
});

test('noise has its deviation, and one pattern at all severities', () => {
  const grey = images(20, 28, () => 128);
  const away = (severity: number) =>
    Array.from(drift(grey, 'noise', severity, 1).data, (byte) => (byte - 128) / 255);
  const [weak, strong] = [away(1), away(2)];
  const deviation = Math.sqrt(weak.reduce((total, x) => total + x * x, 0) / weak.length);
  // 15,680 values: the standard error is 0.6 %.
  expect(Math.abs(deviation / 0.08 - 1)).toBeLessThan(0.03);
  // Within the rounding of both, and where nothing is clipped.
  for (const [i, x] of weak.entries())
    if (Math.abs(strong[i]) < 0.45)
      expect(Math.abs((x * 0.14) / 0.08 - strong[i])).toBeLessThan(0.006);
  expect(drift(grey, 'noise', 1, 2)).not.toEqual(drift(grey, 'noise', 1, 1));
});

test('noise is clipped, not wrapped', () => {
  const { data } = drift(
    images(1, 28, (i) => (i % 2) * 255),
    'noise',
    1,
    3,
  );
  data.forEach((byte, i) => {
    expect(Math.abs(byte - (i % 2) * 255)).toBeLessThan(120);
  });
});

test('blur spreads a point as a Gaussian', () => {
  const { data } = drift(
    images(1, 9, (i) => (i === 4 * 9 + 4 ? 255 : 0)),
    'blur',
    1,
    0,
  );
  // Deviation 0.6: exp(-1 / 0.72) = 0.24935 beside the centre, 0.00387 and 0.000004 further out.
  const along = [0.00387, 0.24935, 1, 0.24935, 0.00387].map((x) => x / 1.50644);
  const square = Array.from(
    { length: 25 },
    (_, i) => data[(2 + Math.floor(i / 5)) * 9 + 2 + (i % 5)],
  );
  expect(square).toEqual(along.flatMap((y) => along.map((x) => Math.round(255 * y * x))));
});

test('blur keeps the sum, edges included', () => {
  fc.assert(
    fc.property(
      fc.uint8Array({ minLength: 64, maxLength: 64 }),
      fc.integer({ min: 1, max: 5 }),
      (data, severity) => {
        const blurred = drift({ dims: [1, 1, 8, 8], data }, 'blur', severity, 0);
        expect(Math.abs(sum(blurred.data) - sum(data))).toBeLessThanOrEqual(32);
      },
    ),
  );
});

test('contrast shrinks about the mean of each image', () => {
  const two = { dims: [2, 1, 1, 2], data: Uint8Array.from([0, 200, 10, 10]) };
  expect([...drift(two, 'contrast', 2, 0).data]).toEqual([50, 150, 10, 10]);
  expect([...drift(two, 'contrast', 5, 0).data]).toEqual([85, 115, 10, 10]);
});

test('rotation turns about the centre, either way by the seed', () => {
  // A point 4 pixels right of the centre (4, 4), at 30 degrees: 3.464 right, 2 up or down.
  const point = images(1, 9, (i) => (i === 4 * 9 + 8 ? 240 : 0));
  const centre = ({ data }: Images) => {
    const mean = (of: (i: number) => number) =>
      data.reduce((total, byte, i) => total + byte * of(i), 0) / sum(data);
    return [mean((i) => Math.floor(i / 9)) - 4, mean((i) => i % 9) - 4];
  };
  const ways = new Set<number>();
  for (let seed = 0; seed < 12; seed++) {
    const [down, right] = centre(drift(point, 'rotation', 3, seed));
    expect(Math.abs(Math.abs(down) - 2)).toBeLessThan(0.3);
    expect(Math.abs(right - 3.464)).toBeLessThan(0.3);
    ways.add(Math.sign(down));
  }
  expect(ways.size).toBe(2);
});

test('rotation interpolates between four pixels, with zeros outside', () => {
  // 2 x 2, by 30 degrees: the corner (-0.5, -0.5) comes from (-0.683, -0.183), or from the mirrored
  // place: 0.183 beyond the edge, 0.317 towards the neighbour.
  const { data } = drift(
    images(1, 2, () => 200),
    'rotation',
    3,
    0,
  );
  expect([...data]).toEqual([163, 163, 163, 163]);
});

test('occlusion blanks one square, in another place for another image', () => {
  const white = images(50, 20, () => 255);
  for (const [i, side] of severities.occlusion.entries()) {
    const { data } = drift(white, 'occlusion', i + 1, 9);
    const places = new Set<number>();
    for (let n = 0; n < 50; n++) {
      const image = data.subarray(n * 400, (n + 1) * 400);
      const first = image.indexOf(0);
      const square = Array.from(
        { length: side * side },
        (_, k) => first + Math.floor(k / side) * 20 + (k % side),
      );
      expect(square.every((at) => image[at] === 0)).toBe(true);
      expect(sum(image)).toBe(255 * (400 - side * side));
      places.add(first);
    }
    expect(places.size).toBeGreaterThan(10);
  }
});

test('what is no corruption, severity or set of images is refused', () => {
  expect(() => drift(uneven, 'snow', 1, 0)).toThrow('no corruption snow of severity 1');
  expect(() => drift(uneven, 'blur', 6, 0)).toThrow('no corruption blur of severity 6');
  expect(() => drift({ ...uneven, dims: [3, 16, 16] }, 'blur', 1, 0)).toThrow('not images');
});

test('a drifted copy is read through its card as the original is', async () => {
  const card = inRepository('fixtures/merging/calib-digits.yaml');
  const copy = await writeDrifted(card, folder, 'contrast', 1, 5);
  const specs = [spec('image', 'float32', ['batch', 1, 28, 28])];
  const [original, drifted] = await Promise.all(
    [card, copy].map((path) => openDataset(path, specs)),
  );
  expect(drifted.length).toBe(original.length);
  for (let i = 0; i < original.length; i += 50) {
    expect(drifted.label?.(i)).toBe(original.label?.(i));
    const [from, to] = [await original.example(i), await drifted.example(i)].map(({ inputs }) =>
      Float64Array.from(inputs.image.data, Number),
    );
    const mean = from.reduce((total, x) => total + x, 0) / from.length;
    // Half a byte of rounding.
    to.forEach((x, k) => {
      expect(Math.abs(x - (mean + 0.7 * (from[k] - mean)))).toBeLessThan(0.51 / 255 / 0.353);
    });
  }
  expect(readFileSync(copy, 'utf8')).toContain('contrast-1-5.images,contrast-1-5.labels');
});
