import { Adam, type Floats, type Optimizer, Sgd } from '../../src/autodiff/optimizer.js';
import { noise } from './small-models.js';

const size = 20;
const steps = 6;

/** What the optimizer makes of one parameter in a few steps, and of the array it was given. */
function run(optimizer: Optimizer, width: 'float32' | 'float64' = 'float64') {
  const from = (values: ArrayLike<number>): Floats =>
    width === 'float64' ? Float64Array.from(values) : Float32Array.from(values);
  const value = from(noise(size, 1));
  for (let t = 0; t < steps; t++)
    optimizer.step(new Map([['w', value]]), new Map([['w', from(noise(size, 10 + t))]]));
  return value;
}

/** One number at a time, as the papers write it down. */
function reference(each: () => (value: number, gradient: number, t: number) => number) {
  const gradients = Array.from({ length: steps }, (_, t) => noise(size, 10 + t));
  return noise(size, 1).map((start, i) => {
    const update = each();
    return gradients.reduce((value, g, t) => update(value, g[i], t + 1), start);
  });
}

function expectClose(got: Floats, expected: Floats, tolerance: number) {
  for (const [i, v] of expected.entries())
    expect(Math.abs(got[i] - v)).toBeLessThanOrEqual(tolerance);
}

const [lr, momentum, decay] = [0.1, 0.9, 0.03];

const references = {
  SGD: {
    make: () => new Sgd({ learningRate: lr }),
    each: () => (w: number, g: number) => w - lr * g,
  },
  'SGD with momentum and decay': {
    make: () => new Sgd({ learningRate: lr, momentum, weightDecay: decay }),
    each: () => {
      let v: number | undefined;
      return (w: number, g: number) => {
        const d = g + decay * w;
        v = v === undefined ? d : momentum * v + d;
        return w - lr * v;
      };
    },
  },
  Adam: {
    make: () => new Adam({ learningRate: lr, weightDecay: decay }),
    each: () => {
      let [m, v] = [0, 0];
      return (w: number, g: number, t: number) => {
        const d = g + decay * w;
        m = 0.9 * m + 0.1 * d;
        v = 0.999 * v + 0.001 * d * d;
        return w - (lr * (m / (1 - 0.9 ** t))) / (Math.sqrt(v / (1 - 0.999 ** t)) + 1e-8);
      };
    },
  },
  AdamW: {
    make: () =>
      new Adam({
        learningRate: lr,
        betas: [0.8, 0.95],
        epsilon: 1e-3,
        weightDecay: decay,
        decoupled: true,
      }),
    each: () => {
      let [m, v] = [0, 0];
      return (w: number, g: number, t: number) => {
        m = 0.8 * m + 0.2 * g;
        v = 0.95 * v + 0.05 * g * g;
        const step = m / (1 - 0.8 ** t) / (Math.sqrt(v / (1 - 0.95 ** t)) + 1e-3);
        return w - lr * decay * w - lr * step;
      };
    },
  },
};

describe.each(Object.entries(references))('%s', (_, { make, each }) => {
  test('makes the steps of its definition, in place', () => {
    expectClose(run(make()), reference(each), 1e-12);
    expectClose(run(make(), 'float32'), reference(each), 1e-6);
  });

  test('treats each parameter apart', () => {
    const optimizer = make();
    const values = new Map([
      ['a', noise(3, 1)],
      ['b', noise(3, 1)],
    ]);
    optimizer.step(values, new Map([['a', noise(3, 2)]]));
    expect(values.get('b')).toEqual(noise(3, 1));
    expect(values.get('a')).not.toEqual(noise(3, 1));
  });

  test('refuses gradients of another length, or of no parameter', () => {
    const values = new Map([['w', noise(3, 1)]]);
    expect(() => make().step(values, new Map([['w', noise(2, 1)]]))).toThrow('3 values, 2');
    expect(() => make().step(values, new Map([['v', noise(3, 1)]]))).toThrow('undefined values');
  });
});

test('Adam begins with a step of the learning rate, whatever the size of the gradient', () => {
  for (const g of [1e-3, 1, 1e3]) {
    const value = Float64Array.of(0);
    new Adam({ learningRate: 0.1 }).step(
      new Map([['w', value]]),
      new Map([['w', Float64Array.of(g)]]),
    );
    expect(value[0]).toBeCloseTo(-0.1, 5);
  }
});
