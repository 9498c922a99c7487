import fc from 'fast-check';
import { ints, node } from '../support/protos.js';
import { checkGradient, type GradientCase } from './check-gradient.js';

/** Ops that move elements or combine them along axes, with shapes and parameters that nobody chose. */
const property = (name: string, cases: fc.Arbitrary<Omit<GradientCase, 'name'>>) =>
  test(name, async () => {
    await fc.assert(
      fc.asyncProperty(cases, (c) => checkGradient({ ...c, name })),
      { numRuns: 40 },
    );
  });

const shape = fc.array(fc.integer({ min: 1, max: 4 }), { minLength: 1, maxLength: 3 });

/** One entry of `make` for each axis of a random shape. */
const withAxes = <T>(make: (size: number) => fc.Arbitrary<T>) =>
  shape.chain((dims) => fc.record({ dims: fc.constant(dims), each: fc.tuple(...dims.map(make)) }));

property(
  'Slice from anywhere to anywhere in any steps',
  withAxes(() =>
    fc.record({
      start: fc.integer({ min: -6, max: 6 }),
      end: fc.integer({ min: -6, max: 6 }),
      step: fc.integer({ min: -3, max: 3 }).filter((n) => n !== 0),
    }),
  ).map(({ dims, each }) => ({
    nodes: [node('Slice', ['x', 'starts', 'ends', 'axes', 'steps'], ['y'])],
    inputs: { x: { dims } },
    initializers: [
      ints('starts', ...each.map(({ start }) => start)),
      ints('ends', ...each.map(({ end }) => end)),
      ints('axes', ...dims.keys()),
      ints('steps', ...each.map(({ step }) => step)),
    ],
  })),
);

property(
  'Pad by any numbers that leave something',
  withAxes((size) =>
    fc.record({
      begin: fc.integer({ min: -Math.floor((size - 1) / 2), max: 2 }),
      end: fc.integer({ min: -Math.floor((size - 1) / 2), max: 2 }),
    }),
  ).map(({ dims, each }) => ({
    nodes: [node('Pad', ['x', 'pads'], ['y'])],
    inputs: { x: { dims } },
    initializers: [ints('pads', ...each.map(({ begin }) => begin), ...each.map(({ end }) => end))],
  })),
);

property(
  'Gather of any indices along any axis',
  shape
    .chain((dims) => fc.record({ dims: fc.constant(dims), axis: fc.nat(dims.length - 1) }))
    .chain(({ dims, axis }) =>
      fc.record({
        dims: fc.constant(dims),
        axis: fc.constant(axis),
        indices: fc.array(fc.integer({ min: -dims[axis], max: dims[axis] - 1 }), {
          minLength: 1,
          maxLength: 5,
        }),
        fed: fc.boolean(),
      }),
    )
    .map(
      ({ dims, axis, indices, fed }): Omit<GradientCase, 'name'> => ({
        nodes: [node('Gather', ['x', 'i'], ['y'], { axis })],
        inputs: {
          x: { dims },
          ...(fed && { i: { dims: [indices.length], values: indices, dtype: 'int64' } }),
        },
        initializers: fed ? [] : [ints('i', ...indices)],
      }),
    ),
);

property(
  'Products of values that are stretched to one another',
  withAxes((size) => fc.tuple(fc.constantFrom(1, size), fc.constantFrom(1, size))).chain(
    ({ each }) =>
      fc.record({ dropA: fc.nat(each.length), dropB: fc.nat(each.length) }).map(
        ({ dropA, dropB }): Omit<GradientCase, 'name'> => ({
          nodes: [node('Mul', ['a', 'b'], ['y'])],
          inputs: {
            a: { dims: each.map(([a]) => a).slice(dropA) },
            b: { dims: each.map(([, b]) => b).slice(dropB) },
          },
        }),
      ),
  ),
);

const reductions = [
  'ReduceSum',
  'ReduceMean',
  'ReduceMax',
  'ReduceL2',
  'ReduceSumSquare',
  'ReduceLogSumExp',
  'ReduceProd',
];

property(
  'Reductions over any axes',
  withAxes(() => fc.boolean()).chain(({ dims, each }) =>
    fc
      .record({ op: fc.constantFrom(...reductions), keepdims: fc.nat(1) })
      .map(({ op, keepdims }): Omit<GradientCase, 'name'> => {
        const axes = each.flatMap((reduced, axis) => (reduced ? [axis - dims.length] : []));
        return {
          nodes: [node(op, ['x', ...(axes.length ? ['axes'] : [])], ['y'], { keepdims })],
          inputs: { x: { dims, range: [0.5, 2] } },
          initializers: axes.length ? [ints('axes', ...axes)] : [],
          opset: 18,
        };
      }),
  ),
);
