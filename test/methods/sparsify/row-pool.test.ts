import { spawnSync } from 'node:child_process';
import type { LayerTask } from '../../../src/methods/sparsify/layer.js';
import { normals } from './random.js';

// Workers run the compiled entry, so the pool is tested as compiled too.
const compiled = new URL('../../../dist/src/methods/sparsify/row-pool.js', import.meta.url);
const { RowPool }: typeof import('../../../src/methods/sparsify/row-pool.js') = await import(
  compiled.pathname
);

function randomLayer(rows: number, cols: number): LayerTask {
  const normal = normals(1);
  const vector = (make: () => number) => Float32Array.from({ length: cols }, make);
  return {
    w: Float32Array.from({ length: rows * cols }, normal),
    rows,
    cols,
    pattern: { kind: 'unstructured', sparsity: 0.6 },
    criterion: 'wanda',
    statistics: {
      scaler: vector(() => normal() ** 2),
      sum: vector(normal),
      variance: vector(() => normal() ** 2),
    },
    dsnot: { cycles: 50, threshold: 0.1, varPower: 1, sameSign: false },
  };
}

const layer = randomLayer(101, 64);
const patterns = [layer.pattern, { kind: 'nm', n: 2, m: 4 }] as const;

test.each([2, 3])('%i workers give the bytes that one thread gives', async (threads) => {
  const one = new RowPool(1);
  const pool = new RowPool(threads);
  try {
    for (const pattern of patterns) {
      for (const dsnot of [undefined, layer.dsnot]) {
        const task = { ...layer, pattern, dsnot };
        expect(await pool.maskRows(task)).toEqual(await one.maskRows(task));
      }
    }
  } finally {
    await pool.close();
  }
});

test('weights in shared memory are not copied, and not changed', async () => {
  const pool = new RowPool(2);
  try {
    const w = new Float32Array(new SharedArrayBuffer(layer.w.byteLength));
    w.set(layer.w);
    const { mask } = await pool.maskRows({ ...layer, w });
    expect(mask).toEqual((await new RowPool(1).maskRows(layer)).mask);
    expect(w).toEqual(layer.w);
  } finally {
    await pool.close();
  }
});

test('a layer may have fewer rows than there are workers', async () => {
  const pool = new RowPool(3);
  try {
    const narrow = randomLayer(1, 16);
    expect(await pool.maskRows(narrow)).toEqual(await new RowPool(1).maskRows(narrow));
    const empty = await pool.maskRows({ ...narrow, w: new Float32Array(0), rows: 0 });
    expect(empty.mask).toHaveLength(0);
  } finally {
    await pool.close();
  }
});

test('what a worker throws is thrown, and the pool still works', async () => {
  const pool = new RowPool(2);
  try {
    const blind = { ...layer, statistics: undefined };
    await expect(pool.maskRows(blind)).rejects.toThrow('the Wanda score needs statistics');
    expect((await pool.maskRows(layer)).mask).toHaveLength(layer.w.length);
  } finally {
    await pool.close();
  }
});

test('a closed pool lets the process end', () => {
  const script = `
    const { RowPool } = await import(${JSON.stringify(compiled.href)});
    const pool = new RowPool(2);
    const w = new Float32Array(64).fill(1);
    const pattern = { kind: 'unstructured', sparsity: 0.5 };
    const { mask } = await pool.maskRows({ w, rows: 8, cols: 8, pattern, criterion: 'magnitude' });
    await pool.close();
    console.log(mask.join(''));
  `;
  const run = spawnSync(process.execPath, ['--input-type=module', '--eval', script], {
    encoding: 'utf8',
    timeout: 30000,
  });
  expect(run).toMatchObject({ status: 0, stdout: `${'00001111'.repeat(8)}\n`, stderr: '' });
});
