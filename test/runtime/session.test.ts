import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TensorData } from '../../src/data/index.js';
import { ResectError } from '../../src/errors.js';
import { DataLocation, dtypeCode, encodeModel, type ModelProto } from '../../src/onnx/index.js';
import { fingerprint } from '../../src/runtime/fingerprint.js';
import { measureLatency } from '../../src/runtime/latency.js';
import { LinearAlgebra } from '../../src/runtime/linear-algebra.js';
import { Session, withSession } from '../../src/runtime/session.js';
import { floats, ints, model, node, value, weight } from '../support/protos.js';

const folder = mkdtempSync(join(tmpdir(), 'resect-session-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const float = (dims: number[], ...values: number[]): TensorData => ({
  dtype: 'float32',
  dims,
  data: Float32Array.from(values),
});

/** y [n, 2] = x [n, 4] w, and n, the number of rows, as an integer. */
const linear = (): ModelProto =>
  model({
    input: [value('x', ['n', 4])],
    initializer: [weight('w', [4, 2]), ints('first', 0)],
    node: [
      node('MatMul', ['x', 'w'], ['y']),
      node('Shape', ['x'], ['shape']),
      node('Gather', ['shape', 'first'], ['n']),
    ],
    output: [value('y', ['n', 2]), value('n', [1], 'int64')],
  });

const run = (m: ModelProto, feeds: Record<string, TensorData>, outputs?: string[]) =>
  withSession(encodeModel(m), { threads: 1 }, (session) => session.run(feeds, outputs));

async function errorOf(promise: Promise<unknown>): Promise<ResectError> {
  const error = await promise.catch((e: unknown) => e);
  if (error instanceof ResectError) return error;
  throw error ?? new Error('nothing was thrown');
}

describe('a session', () => {
  test('tells inputs and outputs', () =>
    withSession(encodeModel(linear()), {}, async ({ inputs, outputs }) => {
      expect(inputs).toEqual([{ name: 'x', dtype: 'float32', dims: ['n', 4] }]);
      expect(outputs.map(({ name, dtype }) => [name, dtype])).toEqual([
        ['y', 'float32'],
        ['n', 'int64'],
      ]);
    }));

  test('runs a model from a file', async () => {
    const path = join(folder, 'linear.onnx');
    writeFileSync(path, encodeModel(linear()));
    const { n } = await withSession(path, {}, (session) =>
      session.run({ x: float([1, 4], 1, 2, 3, 4) }),
    );
    expect(n).toEqual({ dtype: 'int64', dims: [1], data: BigInt64Array.of(1n) });
  });

  test('fetches only the outputs that are asked for', async () => {
    const feeds = { x: float([1, 4], 1, 2, 3, 4) };
    expect(Object.keys(await run(linear(), feeds))).toEqual(['y', 'n']);
    expect(Object.keys(await run(linear(), feeds, ['n']))).toEqual(['n']);
  });

  test('ignores feeds that the model does not take', async () => {
    const { n } = await run(linear(), { x: float([0, 4]), other: float([1], 1) });
    expect(n.data[0]).toBe(0n);
  });

  test('finds external weights of bytes in the folder', async () => {
    const m = linear();
    const [w] = m.graph!.initializer;
    writeFileSync(join(folder, 'w.bin'), w.rawData!);
    m.graph!.initializer[0] = {
      ...w,
      rawData: undefined,
      dataLocation: DataLocation.external,
      externalData: [{ key: 'location', value: 'w.bin' }],
    };
    const inline = await run(linear(), { x: float([1, 4], 1, 2, 3, 4) });
    const { y } = await withSession(encodeModel(m), { folder }, (session) =>
      session.run({ x: float([1, 4], 1, 2, 3, 4) }),
    );
    expect(y).toEqual(inline.y);
  });

  test('carries half floats as their bits, both ways', async () => {
    const m = model({
      input: [value('x', [2], 'float16')],
      node: [node('Neg', ['x'], ['y'])],
      output: [value('y', [2], 'float16')],
    });
    const one: TensorData = { dtype: 'float16', dims: [2], data: Uint16Array.of(0x3c00, 0xc000) };
    const { y } = await run(m, { x: one });
    expect(y).toEqual({ dtype: 'float16', dims: [2], data: Uint16Array.of(0xbc00, 0x4000) });
  });

  test('carries booleans, bytes and scalars', async () => {
    const m = model({
      input: [value('a', [2], 'bool'), value('b', [], 'uint8')],
      node: [node('Not', ['a'], ['c']), node('Cast', ['b'], ['d'], { to: dtypeCode('int32') })],
      output: [value('c', [2], 'bool'), value('d', [], 'int32')],
    });
    const { c, d } = await run(m, {
      a: { dtype: 'bool', dims: [2], data: Uint8Array.of(1, 0) },
      b: { dtype: 'uint8', dims: [], data: Uint8Array.of(7) },
    });
    expect(Array.from(c.data, Number)).toEqual([0, 1]);
    expect(d).toEqual({ dtype: 'int32', dims: [], data: Int32Array.of(7) });
  });

  test('leaves out what is no numeric tensor', async () => {
    const m = model({
      input: [value('x', [4])],
      node: [
        node('SplitToSequence', ['x'], ['parts']),
        node('Cast', ['x'], ['words'], { to: dtypeCode('string') }),
        node('Neg', ['x'], ['y']),
      ],
      output: [
        { name: 'parts', type: { sequenceType: { elemType: { tensorType: { elemType: 1 } } } } },
        value('words', [4], 'string'),
        value('y', [4]),
      ],
    });
    const outputs = await run(m, { x: float([4], 1, 2, 3, 4) }, ['words', 'y']);
    expect(Object.keys(outputs)).toEqual(['y']);
    await withSession(encodeModel(m), {}, async (session) => {
      expect(session.outputs.map(({ name }) => name)).not.toContain('parts');
    });
  });

  test('outputs that the runtime cannot hand over do not spoil the others', async () => {
    const m = model({
      input: [value('x', [4])],
      node: [node('SplitToSequence', ['x'], ['parts']), node('Neg', ['x'], ['y'])],
      output: [
        { name: 'parts', type: { sequenceType: { elemType: { tensorType: { elemType: 1 } } } } },
        value('y', [4]),
      ],
    });
    expect(Object.keys(await run(m, { x: float([4], 1, 2, 3, 4) }))).toEqual(['y']);
  });
});

describe('refusals', () => {
  test('of what is no model: exit 5, with the runtime’s reason and no path of its sources', async () => {
    const { exitCode, detail } = await errorOf(Session.open(new Uint8Array(64).fill(7)));
    expect(exitCode).toBe(5);
    expect(detail.got).toBeTruthy();
    expect(detail.got).not.toMatch(/onnxruntime_src/);
  });

  test('of an unknown operator: exit 5, naming it and the file', async () => {
    const path = join(folder, 'custom.onnx');
    writeFileSync(
      path,
      encodeModel(
        model({
          input: [value('x', [1])],
          node: [node('Frobnicate', ['x'], ['y'])],
          output: [value('y', [1])],
        }),
      ),
    );
    const { exitCode, detail } = await errorOf(Session.open(path));
    expect(exitCode).toBe(5);
    expect(detail).toMatchObject({ where: path, got: expect.stringMatching(/Frobnicate/) });
  });

  test.each<[string, Record<string, TensorData>]>([
    ['of the wrong shape', { x: float([1, 3], 1, 2, 3) }],
    ['of the wrong rank', { x: float([4], 1, 2, 3, 4) }],
    ['of the wrong type', { x: { dtype: 'int64', dims: [1, 4], data: new BigInt64Array(4) } }],
    ['that is missing', {}],
  ])('of data %s: exit 6', async (_, feeds) => {
    const { exitCode, detail } = await errorOf(run(linear(), feeds));
    expect(exitCode).toBe(6);
    expect(detail.got).toBeTruthy();
  });

  test('of a model that fails on data that fits: exit 5', async () => {
    const m = model({
      input: [value('x', ['n'])],
      initializer: [ints('pairs', -1, 2)],
      node: [node('Reshape', ['x', 'pairs'], ['y'])],
      output: [value('y', ['m', 2])],
    });
    const { exitCode } = await errorOf(run(m, { x: float([3], 1, 2, 3) }));
    expect(exitCode).toBe(5);
  });
});

describe('release', () => {
  const afterwards = (session: Session | undefined) =>
    session?.run({ x: float([1, 4], 1, 2, 3, 4) });

  test('withSession releases, also when its user throws', async () => {
    let seen: Session | undefined;
    const failing = withSession(encodeModel(linear()), {}, async (session) => {
      seen = session;
      throw new Error('user');
    });
    await expect(failing).rejects.toThrow('user');
    await expect(afterwards(seen)).rejects.toThrow();
  });

  test('and when all went well', async () => {
    let seen: Session | undefined;
    await withSession(encodeModel(linear()), {}, async (session) => {
      seen = session;
    });
    await expect(afterwards(seen)).rejects.toThrow();
  });
});

test('latency: one result per model, quartiles in order', async () => {
  const models = [linear(), linear()].map((m) => encodeModel(m));
  const sessions = await Promise.all(models.map((bytes) => Session.open(bytes, { threads: 1 })));
  try {
    const latencies = await measureLatency(sessions, { x: float([1, 4], 1, 2, 3, 4) });
    expect(latencies.length).toBe(2);
    for (const { lowerQuartile, median, upperQuartile } of latencies) {
      expect(lowerQuartile).toBeGreaterThan(0);
      expect(lowerQuartile).toBeLessThanOrEqual(median);
      expect(median).toBeLessThanOrEqual(upperQuartile);
    }
  } finally {
    for (const session of sessions) await session.release();
  }
});

describe('linear algebra', () => {
  const random = (n: number, seed: number) =>
    Float32Array.from({ length: n }, (_, i) => Math.sin(i * 1.7 + seed));

  test.each([
    [3, 4, 5],
    [1, 1, 1],
    [17, 2, 33],
  ])('a·bᵀ for a [%d, k], b [%d, k], k = %d', async (m, n, k) => {
    const algebra = await LinearAlgebra.open(1);
    try {
      const [a, b] = [random(m * k, 1), random(n * k, 2)];
      const c = await algebra.timesTransposed(a, b, k);
      expect(c.length).toBe(m * n);
      for (let i = 0; i < m; i++)
        for (let j = 0; j < n; j++) {
          let sum = 0;
          for (let l = 0; l < k; l++) sum += a[i * k + l] * b[j * k + l];
          expect(c[i * n + j]).toBeCloseTo(sum, 4);
        }
    } finally {
      await algebra.release();
    }
  });

  test('of no rows is nothing', async () => {
    const algebra = await LinearAlgebra.open(1);
    expect((await algebra.timesTransposed(new Float32Array(0), random(6, 1), 3)).length).toBe(0);
    await algebra.release();
  });
});

test('the fingerprint tells what decides the last bits', () => {
  const made = fingerprint();
  expect(made.onnxruntime).toMatch(/^\d+\.\d+\.\d+/);
  expect(made.node).toBe(process.version);
  expect(made.platform).toBe(`${process.platform}-${process.arch}`);
  expect(made.cpu).toBeTruthy();
});

test('a bias of another length fails in the session, not in the process', async () => {
  const m = model({
    input: [value('x', ['n', 4])],
    initializer: [weight('w', [4, 2]), floats('b', [3], new Float32Array(3))],
    node: [node('Gemm', ['x', 'w', 'b'], ['y'])],
    output: [{ name: 'y' }],
  });
  expect((await errorOf(run(m, { x: float([1, 4], 1, 2, 3, 4) }))).exitCode).toBe(5);
});
