import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { storeSparse } from '../../../src/methods/sparsify/sparse-store.js';
import {
  type DType,
  decodeFloat32,
  dtypeCode,
  encodeFloat32,
  encodeModel,
  type Model,
  makeTensor,
  parseModel,
  readModel,
  readTensorBytes,
  readTensorFloat32,
  type TensorProto,
  tensorInfo,
  writeModel,
} from '../../../src/onnx/index.js';
import { noise, noiseTensor } from '../../graph/helpers.js';
import { model, node, value, weight } from '../../support/protos.js';
import { distance, runOnce } from '../../support/run.js';
import { original, variants } from '../../support/variants.js';
import { layersOf, sparsifyInMemory } from './helpers.js';

const folder = mkdtempSync(join(tmpdir(), 'resect-sparse-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** A weight of which one in `step` values is left. */
const holey = (
  name: string,
  shape: number[],
  step: number,
  dtype: DType = 'float32',
): TensorProto =>
  makeTensor({
    name,
    dtype,
    shape,
    bytes: encodeFloat32(
      noise(shape.reduce((a, b) => a * b, 1)).map((v, i) => (i % step ? 0 : v)),
      dtype,
    ),
  });

const dense = (w: TensorProto, cast = false): Model =>
  parseModel(
    encodeModel(
      model({
        input: [value('x', ['n', 16])],
        initializer: [w],
        node: [
          ...(cast ? [node('Cast', [w.name!], ['v'], { to: dtypeCode('float32') })] : []),
          node('MatMul', ['x', cast ? 'v' : w.name!], ['y']),
        ],
        output: [{ name: 'y' }],
      }),
    ),
  );

const first = (m: Model) => m.proto.graph!.initializer[0];

/** Writes the model and runs it. */
async function run(m: Model, name = 'y') {
  const path = join(mkdtempSync(join(folder, 'm-')), 'model.onnx');
  await writeModel(m, path);
  const { [name]: y } = await runOnce(path, { x: noiseTensor([3, 16]) });
  return { y, path };
}

/** The dense values of a sparse tensor. */
async function expand(m: Model): Promise<number[]> {
  const [{ values, indices, dims }] = m.proto.graph!.sparseInitializer!;
  const all = new Array<number>(dims.reduce((a, b) => a * b, 1)).fill(0);
  const at = new BigInt64Array((await readTensorBytes(m, indices!)).slice().buffer);
  for (const [i, v] of (await readTensorFloat32(m, values!)).entries()) all[Number(at[i])] = v;
  return all;
}

describe('a sparse tensor', () => {
  test.each(['float32', 'float64', 'float16'] as DType[])(
    'of %s gives the same output in the runtime',
    async (dtype) => {
      const make = () => dense(holey('w', [16, 4], 5, dtype), dtype !== 'float32');
      const m = make();
      const before = await run(make());
      await storeSparse(m, [first(m)], 'sparse');
      expect(m.proto.graph!.initializer).toEqual([]);
      expect(distance(before.y, (await run(m)).y)).toBe(0);
    },
  );

  test('holds the values after edits, in ascending order, and no edit is left to apply', async () => {
    const m = dense(weight('w', [16, 4]));
    const w = first(m);
    m.edits.set(w, (raw) =>
      encodeFloat32(
        decodeFloat32(raw, 'float32').map((v, i) => (i % 3 ? v : 0)),
        'float32',
      ),
    );
    const wanted = Array.from(await readTensorFloat32(m, w));
    await storeSparse(m, [w], 'sparse');
    expect(m.edits.size).toBe(0);
    expect(await expand(m)).toEqual(wanted);
    const [{ indices, values }] = m.proto.graph!.sparseInitializer!;
    expect(tensorInfo(values!).elements).toBe(wanted.filter((v) => v !== 0).length);
    const at = new BigInt64Array((await readTensorBytes(m, indices!)).slice().buffer);
    expect([...at]).toEqual([...at].sort((a, b) => Number(a - b)));
  });

  test('keeps minus zero', async () => {
    const m = dense(
      makeTensor({
        name: 'w',
        dtype: 'float32',
        shape: [16, 1],
        bytes: new Uint8Array(
          Float32Array.from({ length: 16 }, (_, i) => (i === 3 ? -0 : 0)).buffer,
        ),
      }),
    );
    await storeSparse(m, [first(m)], 'sparse');
    expect(Object.is((await expand(m))[3], -0)).toBe(true);
  });

  test('of nothing but zeros', async () => {
    const m = dense(
      makeTensor({ name: 'w', dtype: 'float32', shape: [16, 4], bytes: new Uint8Array(256) }),
    );
    await storeSparse(m, [first(m)], 'sparse');
    const { y } = await run(m);
    expect(Array.from(y.data, Number)).toEqual(new Array(12).fill(0));
  });

  test('that was an input, too, in an old file', async () => {
    const m = dense(holey('w', [16, 4], 4));
    m.proto.irVersion = 3;
    m.proto.graph!.input.push(value('w', [16, 4]));
    await storeSparse(m, [first(m)], 'sparse');
    expect(m.proto.irVersion).toBe(6);
    expect(m.proto.graph!.input.map(({ name }) => name)).toEqual(['x']);
    await run(m);
  });

  test('is told as such when the written model is read again', async () => {
    const m = dense(holey('w', [16, 4], 4));
    await storeSparse(m, [first(m)], 'sparse');
    const { path } = await run(m);
    expect(layersOf(await readModel(path))).toMatchObject([
      { skip: 'weight stored as a sparse tensor' },
    ]);
  });
});

describe('auto takes the smaller form', () => {
  // An index takes 8 bytes: float32 breaks even at a third of the values, float16 at a fifth, float64 at a half.
  test.each<[DType, number, boolean]>([
    ['float32', 3, false],
    ['float32', 4, true],
    ['float16', 5, false],
    ['float16', 6, true],
    ['float64', 2, false],
    ['float64', 3, true],
  ])('%s with one value in %d: sparse %s', async (dtype, step, sparse) => {
    const m = dense(holey('w', [16, 60], step, dtype), true);
    const before = (await run(m)).path;
    const notes = await storeSparse(m, [first(m)], 'auto');
    expect(m.proto.graph!.sparseInitializer?.length ?? 0).toBe(sparse ? 1 : 0);
    expect(notes[0]).toMatch(sparse ? /^1 of 1/ : /^0 of 1/);
    if (sparse) expect(statSync((await run(m)).path).size).toBeLessThan(statSync(before).size);
  });

  test('tensor by tensor', async () => {
    const m = dense(holey('w', [16, 16], 9));
    m.proto.graph!.initializer.push(weight('u', [16, 4]));
    m.proto.graph!.node.push(node('MatMul', ['y', 'u'], ['z']));
    await storeSparse(m, [...m.proto.graph!.initializer], 'auto');
    expect(m.proto.graph!.initializer.map(({ name }) => name)).toEqual(['u']);
  });
});

test('sparse says how many bytes it costs where it is larger', async () => {
  const m = dense(weight('w', [16, 4]));
  expect((await storeSparse(m, [first(m)], 'sparse'))[0]).toBe(
    '1 of 1 pruned tensors stored sparse, 512 bytes more',
  );
});

describe('what cannot be sparse stays dense, and is told', () => {
  test.each(['Constant nodes', 'branch with weights', 'int8 per channel'])('%s', async (name) => {
    const m = await readModel(
      variants.find((v) => v.name === name)!.write(mkdtempSync(join(folder, 'v-'))),
    );
    const { notes } = await sparsifyInMemory(m, {
      parameters: { sparsity: 0.8, init: 'magnitude', refine: 'none', store: 'sparse' },
      selects: (layer) => layer !== 'never',
    });
    expect(notes.join()).toMatch(/10 pruned tensors stay dense/);
    expect(m.proto.graph!.sparseInitializer ?? []).toEqual([]);
  });
});

describe('sparsify --store', () => {
  const prune = async (store: 'dense' | 'sparse' | 'auto') => {
    const m = await readModel(original);
    const surgery = await sparsifyInMemory(m, {
      parameters: { sparsity: 0.9, init: 'magnitude', refine: 'none', store },
    });
    const path = join(mkdtempSync(join(folder, 's-')), 'model.onnx');
    await writeModel(m, path);
    const { logits } = await runOnce(path, { image: noiseTensor([2, 1, 28, 28]) });
    return { surgery, path, logits };
  };

  test('the three forms compute the same; auto is the smallest', async () => {
    const [asDense, asSparse, asAuto] = [
      await prune('dense'),
      await prune('sparse'),
      await prune('auto'),
    ];
    for (const { logits } of [asSparse, asAuto]) expect(distance(asDense.logits, logits)).toBe(0);
    const size = ({ path }: { path: string }) => statSync(path).size;
    expect(size(asAuto)).toBeLessThan(size(asDense));
    expect(size(asAuto)).toBeLessThanOrEqual(size(asSparse));
  });

  test('the changed tensors are told, whatever their form', async () => {
    const names = (await prune('dense')).surgery.changedTensors.sort();
    expect(names.length).toBe(10);
    expect((await prune('sparse')).surgery.changedTensors.sort()).toEqual(names);
  });
});
