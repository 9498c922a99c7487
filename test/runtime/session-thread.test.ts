import { ResectError } from '../../src/errors.js';
import { Session } from '../../src/runtime/session.js';
import { linear } from '../support/protos.js';

// Workers run the compiled entry, so the thread is tested as compiled too.
const compiled = new URL('../../dist/src/runtime/session-thread.js', import.meta.url);
const { SessionThread }: typeof import('../../src/runtime/session-thread.js') = await import(
  compiled.pathname
);

const x = {
  dtype: 'float32' as const,
  dims: [2, 8],
  data: Float32Array.from({ length: 16 }, (_, i) => i / 3),
};

test('runs what a session runs, several of them', async () => {
  const thread = new SessionThread();
  const here = await Session.open(linear(), { threads: 1 });
  const there = await thread.open(linear(), { threads: 1 });
  const other = await thread.open(linear(), { threads: 1 });
  expect({ inputs: there.inputs, outputs: there.outputs }).toEqual({
    inputs: here.inputs,
    outputs: here.outputs,
  });
  const want = Array.from((await here.run({ x })).y.data as Float32Array);
  const [a, b] = await Promise.all([there.run({ x }), other.run({ x }, ['y'])]);
  for (const got of [a, b]) {
    expect(got.y.dims).toEqual([2, 4]);
    expect(Array.from(got.y.data as Float32Array)).toEqual(want);
  }
  await there.release();
  await expect(other.run({ x })).resolves.toHaveProperty('y');
  await here.release();
  await thread.close();
});

test('errors come back as what they are', async () => {
  const thread = new SessionThread();
  const session = await thread.open(linear(), { threads: 1 });
  const misfit = session.run({ x: { ...x, dims: [4, 4] } });
  await expect(misfit).rejects.toMatchObject({
    exitCode: 6,
    message: 'The data does not fit the model.',
    detail: { hint: expect.stringMatching(/inspect/) },
  });
  await misfit.catch((error) => expect(error.constructor.name).toBe(ResectError.name));
  await expect(thread.open(Uint8Array.of(1, 2, 3), {})).rejects.toMatchObject({ exitCode: 5 });
  await thread.close();
});
