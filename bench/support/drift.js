// Images that drift away from what a model was trained on, and copies of data sets made of them.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { readCard } from '../../dist/src/data/card.js';
import { normal, uniform } from '../../dist/src/data/index.js';
import { openNpz } from '../../dist/src/data/npz.js';

/**
 * How strong each corruption is at severities 1 to 5: deviation of the noise, of pixels in [0, 1];
 * deviation of the Gaussian, in pixels; contrast that is left; degrees; side of the square, in pixels.
 */
export const severities = {
  noise: [0.08, 0.14, 0.2, 0.28, 0.36],
  blur: [0.6, 0.9, 1.2, 1.6, 2],
  contrast: [0.7, 0.5, 0.35, 0.25, 0.15],
  rotation: [10, 20, 30, 40, 50],
  occlusion: [6, 8, 10, 12, 14],
};

/**
 * One corruption of every image. All draws are from one generator, and their number does not depend on
 * the severity: with the same seed, severities differ in strength only (noise has the same pattern,
 * images turn the same way).
 * @param {{ dims: number[], data: Uint8Array }} images `[N, 1, height, width]`, which stay as they are
 * @param {'noise' | 'blur' | 'contrast' | 'rotation' | 'occlusion'} corruption
 * @param {number} severity 1 to 5
 * @param {number} seed any integer
 * @returns {{ dims: number[], data: Uint8Array }} the same shape; clipped, and rounded half to even
 */
export function drift({ dims, data }, corruption, severity, seed) {
  const amount = severities[corruption]?.[severity - 1];
  if (amount === undefined) throw new Error(`no corruption ${corruption} of severity ${severity}`);
  const [count, channels, height, width] = dims;
  const size = height * width;
  if (dims.length !== 4 || channels !== 1 || data.length !== count * size)
    throw new Error(`not images [N, 1, height, width]: [${dims}] with ${data.length} bytes`);
  const random = uniform(seed);
  const draw = { uniform: random, normal: normal(random) };
  const out = new Uint8ClampedArray(data.length);
  for (let at = 0; at < data.length; at += size) {
    const pixels = Float64Array.from(data.subarray(at, at + size), (byte) => byte / 255);
    const changed = change[corruption]({ pixels, height, width }, amount, draw);
    out.set(
      changed.map((x) => 255 * x),
      at,
    );
  }
  return { dims, data: new Uint8Array(out.buffer) };
}

/** Pixels in [0, 1], or a little outside, of one image. */
const change = {
  noise: ({ pixels }, deviation, draw) => pixels.map((x) => x + deviation * draw.normal()),

  blur({ pixels, height, width }, deviation) {
    const rows = smooth(pixels, deviation, {
      lines: height,
      step: width,
      length: width,
      stride: 1,
    });
    return smooth(rows, deviation, { lines: width, step: 1, length: height, stride: width });
  },

  contrast({ pixels }, factor) {
    const mean = pixels.reduce((sum, x) => sum + x, 0) / pixels.length;
    return pixels.map((x) => mean + factor * (x - mean));
  },

  /** About the centre, clockwise or not by chance; bilinear, with zeros outside. */
  rotation({ pixels, height, width }, degrees, draw) {
    const angle = (draw.uniform() < 0.5 ? -degrees : degrees) * (Math.PI / 180);
    const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
    const [middleY, middleX] = [(height - 1) / 2, (width - 1) / 2];
    const at = (y, x) => (y < 0 || y >= height || x < 0 || x >= width ? 0 : pixels[y * width + x]);
    return pixels.map((_, i) => {
      const dy = Math.floor(i / width) - middleY;
      const dx = (i % width) - middleX;
      const y = middleY + cos * dy - sin * dx;
      const x = middleX + sin * dy + cos * dx;
      const [top, left] = [Math.floor(y), Math.floor(x)];
      const [down, right] = [y - top, x - left];
      return (
        (1 - down) * ((1 - right) * at(top, left) + right * at(top, left + 1)) +
        down * ((1 - right) * at(top + 1, left) + right * at(top + 1, left + 1))
      );
    });
  },

  /** A square of zeros that lies inside the image. */
  occlusion({ pixels, height, width }, side, draw) {
    const top = Math.floor(draw.uniform() * (height - side + 1));
    const left = Math.floor(draw.uniform() * (width - side + 1));
    for (let y = top; y < top + side; y++)
      pixels.fill(0, y * width + left, y * width + left + side);
    return pixels;
  },
};

/** Gaussian along one axis. The image goes on mirrored beyond its edges, which keeps its sum. */
function smooth(pixels, deviation, { lines, step, length, stride }) {
  const radius = Math.ceil(3 * deviation);
  const kernel = Array.from({ length: 2 * radius + 1 }, (_, k) =>
    Math.exp(-(((k - radius) / deviation) ** 2) / 2),
  );
  const total = kernel.reduce((sum, weight) => sum + weight, 0);
  const mirrored = (i) => {
    const within = ((i % (2 * length)) + 2 * length) % (2 * length);
    return within < length ? within : 2 * length - 1 - within;
  };
  const out = new Float64Array(pixels.length);
  for (let line = 0; line < lines; line++)
    for (let i = 0; i < length; i++)
      for (let k = 0; k < kernel.length; k++)
        out[line * step + i * stride] +=
          (kernel[k] / total) * pixels[line * step + mirrored(i + k - radius) * stride];
  return out;
}

/**
 * Writes a drifted copy of labelled images as IDX files, and a data card which feeds a model with them as
 * the given card does with the images it names.
 * @param {string} card path of a data card of an `.npz` with uint8 images and labels
 * @param {string} folder where `NAME.images`, `NAME.labels` and `NAME.yaml` go; must exist
 * @returns {Promise<string>} path of the new card; NAME is `CORRUPTION-SEVERITY-SEED`
 */
export async function writeDrifted(card, folder, corruption, severity, seed) {
  const { file, inputs, labels, ...rest } = await readCard(card);
  const [[input, mapping]] = Object.entries(inputs);
  const npz = await openNpz(file);
  const images = drift(
    await readBytes(await npz.column(mapping.array)),
    corruption,
    severity,
    seed,
  );
  const name = `${corruption}-${severity}-${seed}`;
  const path = (ending) => join(folder, `${name}.${ending}`);
  writeFileSync(path('images'), idx(images));
  writeFileSync(path('labels'), idx(await readBytes(await npz.column(labels))));
  const copy = {
    ...rest,
    file: `${name}.images,${name}.labels`,
    inputs: { [input]: { ...mapping, array: 'data' } },
    labels: 'label',
  };
  // JSON is YAML too.
  writeFileSync(path('yaml'), `${JSON.stringify(copy, null, 2)}\n`);
  return path('yaml');
}

/** All items of a column of uint8, as one array. */
async function readBytes({ length, item, itemDims }) {
  const items = [];
  for (let i = 0; i < length; i++) items.push((await item(i)).data);
  return { dims: [length, ...itemDims], data: new Uint8Array(Buffer.concat(items)) };
}

/** Bytes of an IDX file of uint8. */
function idx({ dims, data }) {
  const header = Buffer.from([0, 0, 8, dims.length, ...dims.flatMap(() => [0, 0, 0, 0])]);
  for (const [axis, size] of dims.entries()) header.writeUInt32BE(size, 4 + 4 * axis);
  return Buffer.concat([header, data]);
}
