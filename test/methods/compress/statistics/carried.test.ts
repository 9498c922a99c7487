import type { Step } from '../../../../src/methods/compress/maths/gaussian-step.js';
import { range } from '../../../../src/methods/compress/maths/mixing.js';
import { measureMoments } from '../../../../src/methods/compress/statistics/measured.js';
import { droppedMoments } from '../../../../src/methods/compress/statistics/signals.js';
import type { NodeProto, TensorProto } from '../../../../src/onnx/index.js';
import { floats, ints, node } from '../../../support/protos.js';
import { gaussianSamples, network, parameter, partOf, walk } from './support.js';

const CHANNELS = 6;
const SIZE = 8;

const scalar = (name: string, value: number) => floats(name, [], Float32Array.of(value));

/** Filters of a pointwise convolution of 3 independent inputs, and the normalization that fits it. */
function firstLayer(): TensorProto[] {
  const weight = parameter('first', [CHANNELS, 3, 1, 1], 1);
  const w = new Float32Array(weight.rawData!.slice().buffer);
  const variance = Float32Array.from({ length: CHANNELS }, (_, i) =>
    w.subarray(3 * i, 3 * i + 3).reduce((sum, v) => sum + v * v, 0),
  );
  return [
    weight,
    parameter('gamma', [CHANNELS], 2, 0.3, 1),
    parameter('beta', [CHANNELS], 3, 0.5),
    floats('mean', [CHANNELS], new Float32Array(CHANNELS)),
    floats('variance', [CHANNELS], variance),
  ];
}

interface Case {
  nodes: NodeProto[];
  constants?: TensorProto[];
  channels?: number;
  /** In a sample, behind the nodes. */
  positions?: number;
}

/**
 * The channels `u` of independent Gaussian positions, something that is done to them, and a layer that
 * reads the outcome: there the moments must be what they are on samples.
 */
const cases: Record<string, Case> = {
  nothing: { nodes: [node('Identity', ['u'], ['y'])] },
  Relu: { nodes: [node('Relu', ['u'], ['y'])] },
  'a Clip to bounds': {
    nodes: [node('Clip', ['u', 'low', 'high'], ['y'])],
    constants: [scalar('low', -0.5), scalar('high', 0.7)],
  },
  'SiLU in parts': { nodes: [node('Sigmoid', ['u'], ['s']), node('Mul', ['u', 's'], ['y'])] },
  'hard swish in parts': {
    nodes: [
      node('Add', ['u', 'three'], ['a']),
      node('Clip', ['a', 'low', 'high'], ['b']),
      node('Mul', ['u', 'b'], ['c']),
      node('Div', ['c', 'high'], ['y']),
    ],
    constants: [scalar('three', 3), scalar('low', 0), scalar('high', 6)],
  },
  'GELU in parts': {
    nodes: [
      node('Div', ['u', 'root'], ['a']),
      node('Erf', ['a'], ['b']),
      node('Add', ['b', 'one'], ['c']),
      node('Mul', ['u', 'c'], ['d']),
      node('Mul', ['d', 'half'], ['y']),
    ],
    constants: [scalar('root', Math.SQRT2), scalar('one', 1), scalar('half', 0.5)],
  },
  'a depthwise convolution of two per channel': {
    nodes: [
      node('Relu', ['u'], ['a']),
      node('Conv', ['a', 'depthwise'], ['y'], { group: CHANNELS }),
    ],
    constants: [parameter('depthwise', [2 * CHANNELS, 1, 1, 1], 5)],
    channels: 2 * CHANNELS,
  },
  'a constant per channel': {
    nodes: [
      node('Relu', ['u'], ['a']),
      node('Mul', ['a', 'scale'], ['b']),
      node('Sub', ['shift', 'b'], ['y']),
    ],
    constants: [
      parameter('scale', [CHANNELS, 1, 1], 6),
      parameter('shift', [1, CHANNELS, 1, 1], 7),
    ],
  },
  'an average of independent positions': {
    nodes: [
      node('Relu', ['u'], ['a']),
      node('AveragePool', ['a'], ['y'], { kernel_shape: [2, 2], strides: [2, 2] }),
    ],
    positions: (SIZE * SIZE) / 4,
  },
  'a mean over all positions': {
    nodes: [node('Relu', ['u'], ['a']), node('ReduceMean', ['a'], ['y'], { axes: [2, 3] })],
    positions: 1,
  },
  'the second part of a Split': {
    nodes: [node('Relu', ['u'], ['a']), node('Split', ['a', 'parts'], ['p', 'y'], { axis: 1 })],
    constants: [ints('parts', 2, CHANNELS - 2)],
    channels: CHANNELS - 2,
  },
  'a Slice backwards': {
    nodes: [
      node('Relu', ['u'], ['a']),
      node('Slice', ['a', 'starts', 'ends', 'axes', 'steps'], ['y']),
    ],
    constants: [ints('starts', -1), ints('ends', -100), ints('axes', 1), ints('steps', -2)],
    channels: CHANNELS / 2,
  },
  'a Gather': {
    nodes: [node('Gather', ['u', 'indices'], ['y'], { axis: 1 })],
    constants: [ints('indices', 4, 0, 4)],
    channels: 3,
  },
  'a Concat of separate channels': {
    nodes: [
      node('Conv', ['x', 'other'], ['v']),
      node('Slice', ['x', 'starts', 'ends', 'axes'], ['w']),
      node('Concat', ['v', 'w'], ['y'], { axis: 1 }),
    ],
    // The one reads inputs 0 and 1, the other is input 2.
    constants: [
      floats('other', [2, 3, 1, 1], Float32Array.of(1, 2, 0, -1, 0.5, 0)),
      ints('starts', 2),
      ints('ends', 3),
      ints('axes', 1),
    ],
    channels: 3,
  },
  'a normalization by itself': {
    nodes: [
      node('Identity', ['u'], ['a']),
      node('MaxPool', ['a'], ['b'], { kernel_shape: [1, 1] }),
      node('BatchNormalization', ['b', 'ones', 'zeros', 'mean2', 'variance2'], ['y']),
    ],
    constants: [
      parameter('ones', [CHANNELS], 8),
      parameter('zeros', [CHANNELS], 9),
      parameter('mean2', [CHANNELS], 3, 0.5),
      floats(
        'variance2',
        [CHANNELS],
        new Float32Array(parameter('', [CHANNELS], 2, 0.3, 1).rawData!.slice().buffer).map(
          (g) => g * g,
        ),
      ),
    ],
  },
};

test.each(Object.entries(cases))('moments behind %s are those of samples', async (_, given) => {
  const { nodes, constants = [], channels = CHANNELS, positions = SIZE * SIZE } = given;
  const source = network(
    [3, SIZE, SIZE],
    [
      node('Conv', ['x', 'first'], ['conv']),
      node('BatchNormalization', ['conv', 'gamma', 'beta', 'mean', 'variance'], ['u']),
      ...nodes,
      node('Conv', ['y', 'last'], ['z']),
    ],
    [...firstLayer(), ...constants, parameter('last', [2, channels, 1, 1], 4)],
  );
  const visit = (await walk(source)).get('last')!;
  expect(visit.assumed).toBeUndefined();
  const samples = gaussianSamples('x', 400, [3, SIZE, SIZE]);
  const measured = await measureMoments(partOf(source, samples), [visit]);
  const { mean, covariance } = measured.get(visit.node.input[0])!;
  const { original } = visit.input;
  expect(original.mean).toHaveLength(channels);
  const most = 5 / Math.sqrt(samples.length * positions);
  const spread = (i: number) => Math.sqrt(covariance[i * (channels + 1)]) + 1e-6;
  mean.forEach((value, i) => {
    expect(Math.abs(original.mean[i] - value) / spread(i)).toBeLessThan(most);
  });
  covariance.forEach((value, k) => {
    const size = spread(Math.floor(k / channels)) * spread(k % channels);
    expect(Math.abs(original.covariance[k] - value) / size).toBeLessThan(most);
  });
});

const simple = (nodes: NodeProto[], constants: TensorProto[], dims = [3, SIZE, SIZE]) =>
  network(dims, nodes, constants);

describe('where moments are lost', () => {
  test('the next layer starts from independent channels, and says why', async () => {
    const visits = await walk(
      simple(
        [
          node('Conv', ['x', 'a'], ['u']),
          node('LRN', ['u'], ['v'], { size: 3 }),
          node('Relu', ['v'], ['w']),
          node('Conv', ['w', 'b'], ['z']),
        ],
        [parameter('a', [4, 3, 1, 1], 1), parameter('b', [2, 4, 1, 1], 2)],
      ),
    );
    const { assumed, input } = visits.get('b')!;
    expect(assumed).toBe('LRN is not followed');
    expect(input.compressed).toBeUndefined();
    expect(Array.from(input.original.mean)).toEqual([0, 0, 0, 0]);
    expect(input.original.covariance[5]).toBe(1);
  });

  test('measured moments take the place of the assumed ones', async () => {
    const source = simple(
      [
        node('Conv', ['x', 'a'], ['u']),
        node('Softmax', ['u'], ['v'], { axis: 1 }),
        node('Conv', ['v', 'b'], ['z']),
      ],
      [parameter('a', [4, 3, 1, 1], 1), parameter('b', [2, 4, 1, 1], 2)],
    );
    const part = partOf(source, gaussianSamples('x', 4, [3, SIZE, SIZE]));
    const measured = await measureMoments(part, [(await walk(source)).get('b')!]);
    const { assumed, input } = (await walk(source, { measured })).get('b')!;
    expect(assumed).toBeUndefined();
    expect(input.original).toBe(measured.get('v'));
    expect(input.original.mean.reduce((a, b) => a + b)).toBeCloseTo(1, 5);
  });
});

test('walks that share their steps see the same', async () => {
  const source = simple(
    [node('Conv', ['x', 'a'], ['u']), node('Relu', ['u'], ['v']), node('Conv', ['v', 'b'], ['z'])],
    [parameter('a', [4, 3, 1, 1], 1), parameter('b', [2, 4, 1, 1], 2)],
  );
  const alone = await walk(source);
  const steps = new Map<string, Step>();
  const first = await walk(source, { steps });
  expect([...steps.keys()]).toEqual(['u', 'z']);
  const second = await walk(source, { steps });
  for (const layer of ['a', 'b']) {
    expect(second.get(layer)!.step).toBe(first.get(layer)!.step);
    expect(second.get(layer)!.step).toEqual(alone.get(layer)!.step);
    expect(second.get(layer)!.input).toEqual(alone.get(layer)!.input);
  }
});

describe('the compressed network', () => {
  const source = () =>
    simple(
      [
        node('Conv', ['x', 'a'], ['u']),
        node('Relu', ['u'], ['v']),
        node('Conv', ['v', 'depthwise'], ['w'], { group: 4, pads: [1, 1, 1, 1] }),
        node('Conv', ['x', 'side'], ['s']),
        node('Concat', ['w', 's'], ['y'], { axis: 1 }),
        node('Conv', ['y', 'b'], ['z']),
      ],
      [
        parameter('a', [4, 3, 1, 1], 1),
        parameter('depthwise', [4, 1, 3, 3], 2),
        parameter('side', [2, 3, 1, 1], 3),
        parameter('b', [2, 6, 1, 1], 4),
      ],
    );
  const kept = Uint32Array.of(0, 3);

  test('a dropped channel is followed through depthwise convolutions and a Concat', async () => {
    const inputs: string[] = [];
    const visits = await walk(source(), {
      onLayer: (visit) => {
        if (visit.inputKept) inputs.push(visit.node.input[1]);
        if (visit.node.input[1] === 'a') {
          return { kept, preActivation: droppedMoments(visit.step.preActivation, kept) };
        }
        if (visit.node.input[1] !== 'b') return undefined;
        const all = range(2);
        return { kept: all, preActivation: droppedMoments(visit.step.preActivation, all) };
      },
    });
    expect(inputs).toEqual(['depthwise', 'b']);
    const { input, inputKept } = visits.get('b')!;
    expect(Array.from(inputKept!)).toEqual([0, 3, 4, 5]);
    const want = droppedMoments(input.original, inputKept!);
    want.covariance.forEach((value, k) => {
      expect(input.compressed!.covariance[k]).toBeCloseTo(value, 6);
    });
    want.cross.forEach((value, k) => {
      expect(input.compressed!.cross[k]).toBeCloseTo(value, 6);
    });
  });

  test('a layer cannot be left as it is when its input lost channels', async () => {
    const walked = walk(source(), {
      onLayer: (visit) =>
        visit.node.input[1] === 'a'
          ? { kept, preActivation: droppedMoments(visit.step.preActivation, kept) }
          : undefined,
    });
    await expect(walked).rejects.toThrow('its input lost channels');
  });

  test('one kept set of several producers is followed through their sum', async () => {
    const residual = simple(
      [
        node('Conv', ['x', 'a'], ['u']),
        node('Relu', ['u'], ['v']),
        node('Conv', ['v', 'b'], ['w']),
        node('Add', ['v', 'w'], ['y']),
        node('Cast', ['y'], ['y1'], { to: 1 }),
        node('Conv', ['y1', 'c'], ['z']),
      ],
      [
        parameter('a', [4, 3, 1, 1], 1),
        parameter('b', [4, 4, 1, 1], 2),
        parameter('c', [2, 4, 1, 1], 3),
      ],
    );
    const visits = await walk(residual, {
      onLayer: ({ node: { input }, step }) => {
        const left = input[1] === 'c' ? range(2) : kept;
        return { kept: left, preActivation: droppedMoments(step.preActivation, left) };
      },
    });
    const { input, inputKept } = visits.get('c')!;
    expect(inputKept).toEqual(kept);
    expect(input.compressed!.mean[1]).toBeCloseTo(input.original.mean[3], 10);
    expect(input.compressed!.covariance[3]).toBeCloseTo(input.original.covariance[15], 10);
  });

  test('what is combined must have the same channels left', async () => {
    const sum = simple(
      [
        node('Conv', ['x', 'a'], ['u']),
        node('Conv', ['x', 'b'], ['v']),
        node('Add', ['u', 'v'], ['z']),
      ],
      [parameter('a', [4, 3, 1, 1], 1), parameter('b', [4, 3, 1, 1], 2)],
    );
    const walked = walk(sum, {
      onLayer: ({ node: { input }, step }) =>
        input[1] === 'a'
          ? { kept, preActivation: droppedMoments(step.preActivation, kept) }
          : undefined,
    });
    await expect(walked).rejects.toThrow('different channels are left');
  });
});

test('a squeeze-and-excite gate is taken to be independent of what it scales', async () => {
  const visits = await walk(
    simple(
      [
        node('Conv', ['x', 'a'], ['u']),
        node('GlobalAveragePool', ['u'], ['m']),
        node('Conv', ['m', 'g'], ['h']),
        node('Sigmoid', ['h'], ['s']),
        node('Mul', ['u', 's'], ['y']),
        node('Conv', ['y', 'b'], ['z']),
      ],
      [
        parameter('a', [4, 3, 1, 1], 1),
        parameter('g', [4, 4, 1, 1], 2),
        parameter('b', [2, 4, 1, 1], 4),
      ],
    ),
  );
  const { original } = visits.get('b')!.input;
  const before = visits.get('g')!.input.original;
  // Gates are about a half, and vary: variances a little above a quarter.
  original.covariance.forEach((value, k) => {
    if (k % 5) return;
    const variance = visits.get('a')!.step.preActivation.covariance[k];
    expect(value / variance).toBeGreaterThan(0.25);
    expect(value / variance).toBeLessThan(0.5);
  });
  expect(before.covariance[0]).toBeLessThan(visits.get('a')!.step.preActivation.covariance[0]);
});
