import fc from 'fast-check';
import { expectExact } from './helpers.js';
import { type Network, network } from './models.js';

/** One more layer on a value of so many channels. */
type Layer = (n: Network, x: string, channels: number, width: number) => [string, number];

const layers: Record<string, Layer> = {
  conv: (n, x, c, width) => [n.convBnRelu(x, c, width), width],
  depthwise: (n, x, c) => [n.op('HardSwish', [n.conv(x, c, 2 * c, { group: c })]), 2 * c],
  grouped: (n, x, c, width) =>
    c % 2 ? [x, c] : [n.op('LeakyRelu', [n.conv(x, c, 2 * width, { group: 2 })]), 2 * width],
  residual: (n, x, c, width) => [
    n.op('Add', [x, n.conv(n.convBnRelu(x, c, width), width, c, { kernel: 1 })]),
    c,
  ],
  dense: (n, x, c, width) => [
    n.op('Concat', [x, n.convBnRelu(x, c, width)], { axis: 1 }),
    c + width,
  ],
  gate: (n, x, c, width) => {
    const squeezed = n.conv(n.op('GlobalAveragePool', [x]), c, width, { kernel: 1 });
    return [n.op('Mul', [x, n.op('Sigmoid', [n.conv(squeezed, width, c, { kernel: 1 })])]), c];
  },
  slope: (n, x, c) => [n.op('PRelu', [x, n.positive([c, 1, 1])]), c],
  split: (n, x, c) => {
    if (c < 2) return [x, c];
    const at = Math.floor(c / 2);
    const [a, b] = n.ops('Split', [x, n.ints(at, c - at)], [`${x}l`, `${x}r`], { axis: 1 });
    return [n.op('Concat', [b, n.op('Abs', [a])], { axis: 1 }), c];
  },
  turned: (n, x, c) => {
    const last = n.op('Transpose', [x], { perm: [0, 2, 3, 1] });
    return [n.op('Transpose', [n.op('Add', [last, n.weight([c])])], { perm: [0, 3, 1, 2] }), c];
  },
  up: (n, x, c, width) => {
    const w = n.weight([c, width, 1, 1]);
    return [n.op('ConvTranspose', [x, w, n.weight([width])]), width];
  },
};

test('any small network without channels is the network in which nothing reads them', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.tuple(fc.constantFrom(...Object.keys(layers)), fc.integer({ min: 1, max: 5 })), {
        minLength: 1,
        maxLength: 6,
      }),
      fc.boolean(),
      fc.infiniteStream(fc.nat(1000)),
      async (chosen, flatten, random) => {
        const proto = network(
          (n) => {
            let [x, c] = [n.conv('x', 2, 4), 4];
            for (const [kind, width] of chosen) [x, c] = layers[kind](n, x, c, width);
            if (!flatten) return n.head(x, c);
            return n.gemm(n.op('Flatten', [x]), 9 * c, 3, 'logits');
          },
          [2, 2, 3, 3],
        );
        const next = () => Number(random.next().value ?? 0);
        await expectExact(proto, [2, 2, 3, 3], ({ channels, blocks, parts }) => {
          const all = [...Array(channels).keys()];
          if (blocks) {
            const each = 1 + (next() % blocks[0].length);
            const free = all.filter((c) => !blocks.flat().includes(c));
            const kept = blocks.flatMap((block) => shuffled(block, next).slice(0, each));
            return withParts([...free, ...kept], parts, all);
          }
          return withParts(shuffled(all, next).slice(0, 1 + (next() % channels)), parts, all);
        });
      },
    ),
    { numRuns: 80 },
  );
});

const shuffled = (list: number[], next: () => number): number[] =>
  list
    .map((c) => [next(), c])
    .sort((a, b) => a[0] - b[0])
    .map(([, c]) => c);

/** Ascending; all of them where some part would be empty. */
function withParts(kept: number[], parts: number[][], all: number[]): number[] {
  const sound = parts.every((part) => part.some((c) => kept.includes(c)));
  return sound ? kept.sort((a, b) => a - b) : all;
}
