import { factorHessian, prepareHessian } from '../../../src/methods/ternarize/maths/hessian.js';
import { momentsOf, randomInputs, randomLayer } from './maths/support.js';

// Workers run the compiled entry, so the pool is tested as compiled too.
const compiled = new URL('../../../dist/src/methods/ternarize/code-pool.js', import.meta.url);
const { CodePool }: typeof import('../../../src/methods/ternarize/code-pool.js') = await import(
  compiled.pathname
);

const cols = 40;
const layer = randomLayer(101, cols, 7);
const moments = momentsOf(randomInputs(200, cols, 8), cols);

test.each([2, 3])('%i workers give the codes that one thread gives', async (threads) => {
  const one = new CodePool(1);
  const pool = new CodePool(threads);
  try {
    for (const method of ['fit', 'gptq', 'gptq-cd'] as const)
      for (const granularity of [{ group: 16 }, 'channel', 'tensor'] as const) {
        const [a, b] = await Promise.all(
          [one, pool].map(async (p) => {
            const options = { centred: true, Memory: p.Memory };
            const hessian = prepareHessian('layer', moments, options);
            const factor = factorHessian(hessian, options);
            const task = { layer, quantizer: 'fit', method, hessian, factor } as const;
            const { codes, scales } = await p.code(task, granularity);
            return { codes: Array.from(codes), scales: Array.from(scales) };
          }),
        );
        expect(b).toEqual(a);
      }
  } finally {
    await one.close();
    await pool.close();
  }
});

test('descent may go on from the codes of GPTQ', async () => {
  const pool = new CodePool(2);
  try {
    const options = { centred: true, Memory: pool.Memory };
    const hessian = prepareHessian('layer', moments, options);
    const task = {
      layer,
      quantizer: 'fit',
      hessian,
      factor: factorHessian(hessian, options),
    } as const;
    const whole = await pool.code({ ...task, method: 'gptq-cd' }, { group: 16 });
    const start = await pool.code({ ...task, method: 'gptq' }, { group: 16 });
    const before = Array.from(start.codes);
    const rest = await pool.code({ ...task, method: 'gptq-cd' }, { group: 16 }, start);
    expect(rest).toEqual(whole);
    expect(Array.from(start.codes)).toEqual(before);
  } finally {
    await pool.close();
  }
});
