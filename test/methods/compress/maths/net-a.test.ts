import {
  compressNetA,
  goldenKept,
  logitsOf,
  pruneByNorm,
  readFloat32,
  readTensors,
  type Tensors,
} from './net-a.js';

/** Every formula in a row, on the trained network of the goldens, against what their author's made. */
describe('a whole network', () => {
  const variants: Record<string, (tensors: Tensors) => ReturnType<typeof compressNetA>> = {
    p30_l1drop: (tensors) => pruneByNorm(tensors, 0.3, false),
    p50_l1drop: (tensors) => pruneByNorm(tensors, 0.5, false),
    p30_udfc: (tensors) => pruneByNorm(tensors, 0.3, true),
    p50_udfc: (tensors) => pruneByNorm(tensors, 0.5, true),
    p30_gauss: (tensors) => compressNetA(tensors, { ratio: 0.3 }),
    p50_gauss: (tensors) => compressNetA(tensors, { ratio: 0.5 }),
    p30_w4_gauss: (tensors) => compressNetA(tensors, { ratio: 0.3, bits: 4, refit: true }),
  };

  test.each(Object.entries(variants))('%s: same channels, same logits', async (name, compress) => {
    const { tensors, kept } = compress(await readTensors('netA.onnx'));
    expect(kept).toEqual(goldenKept(name));
    const want = readFloat32(`netA.${name}.logits.npy`).data;
    const got = await logitsOf(tensors);
    const worst = want.reduce((most, x, k) => Math.max(most, Math.abs(x - got[k])), 0);
    expect(worst).toBeLessThan(0.002);
  });

  test('p50_gauss: same weights to float32', async () => {
    const { tensors } = compressNetA(await readTensors('netA.onnx'), { ratio: 0.5 });
    for (const [name, { dims, values }] of await readTensors('netA_p50_gauss.onnx')) {
      const got = tensors.get(name)!;
      expect([name, got.dims]).toEqual([name, dims]);
      const worst = values.reduce((most, x, k) => Math.max(most, Math.abs(x - got.values[k])), 0);
      expect(worst).toBeLessThan(1e-6);
    }
  });
});
