import { inferTypes } from '../../../src/autodiff/types.js';
import { layerCosts } from '../../../src/graph/channels/macs.js';
import { Graph } from '../../../src/graph/graph.js';
import { expectExact, withInput } from './helpers.js';
import { images, network } from './models.js';

const net = network((n) => {
  const a = n.op(
    'Conv',
    ['x', n.weight([6, 3, 3, 3]), n.weight([6])],
    { strides: [2, 2], pads: [1, 1, 1, 1] },
    'a',
  );
  const b = n.conv(n.op('Relu', [a]), 6, 4, { group: 2, name: 'b' });
  const c = n.op('ConvTranspose', [b, n.weight([4, 5, 2, 2])], { strides: [2, 2] }, 'c');
  const d = n.op('MatMul', [c, n.weight([8, 7])], {}, 'd');
  return n.gemm(n.op('Flatten', [d]), 280, 3, 'e');
});

const costs = async (proto: typeof net) =>
  layerCosts(new Graph(proto), await inferTypes(withInput(proto, images))).map(
    ({ name, op, macs, bytes }) => [name, op, macs, bytes],
  );

test('multiplications and bytes of each layer', async () => {
  expect(await costs(net)).toEqual([
    ['a', 'Conv', 2 * 6 * 16 * 27, 4 * (162 + 6)],
    ['b', 'Conv', 2 * 4 * 16 * 27, 4 * (108 + 4)],
    ['c', 'ConvTranspose', 2 * 4 * 16 * 20, 4 * 80],
    ['d', 'MatMul', 2 * 5 * 8 * 7 * 8, 4 * 56],
    ['e', 'Gemm', 2 * 3 * 280, 4 * 843],
  ]);
});

test('fewer after pruning, nothing where shapes are not known', async () => {
  const [first] = await costs(await expectExact(net, images));
  expect(first).toEqual(['a', 'Conv', 2 * 4 * 16 * 27, 4 * (108 + 4)]);
  const unknown = layerCosts(new Graph(withInput(net, images)), new Map());
  expect(unknown.map(({ macs }) => macs)).toEqual(Array(5).fill(undefined));
});
