/** Values and gradients of parameters, of any float width. */
export type Floats = Float32Array | Float64Array;

/** Changes parameters in place, by their gradients. */
export interface Optimizer {
  /**
   * One step.
   * @param values by parameter name; written to
   * @param gradients of the same names and lengths; parameters without one stay
   */
  step(values: ReadonlyMap<string, Floats>, gradients: ReadonlyMap<string, Floats>): void;
}

export interface SgdOptions {
  learningRate: number;
  /** Default 0. */
  momentum?: number;
  /** L2 penalty, added to the gradient. Default 0. */
  weightDecay?: number;
}

/** Stochastic gradient descent; momentum as in torch: v = m v + g, and the first v is g. */
export class Sgd implements Optimizer {
  readonly #options: Required<SgdOptions>;
  readonly #velocity = new Map<string, Floats>();

  constructor(options: SgdOptions) {
    this.#options = { momentum: 0, weightDecay: 0, ...options };
  }

  step(values: ReadonlyMap<string, Floats>, gradients: ReadonlyMap<string, Floats>): void {
    const { learningRate, momentum, weightDecay } = this.#options;
    for (const [name, gradient] of gradients) {
      const value = valuesOf(values, name, gradient);
      const velocity = momentum === 0 ? undefined : state(this.#velocity, name, gradient);
      for (let i = 0; i < value.length; i++) {
        let step = gradient[i] + weightDecay * value[i];
        if (velocity) {
          step += momentum * velocity[i];
          velocity[i] = step;
        }
        value[i] -= learningRate * step;
      }
    }
  }
}

/** What Adam's next step depends on besides values and gradients. */
export interface AdamState {
  steps: number;
  /** By parameter name. */
  first: ReadonlyMap<string, Floats>;
  second: ReadonlyMap<string, Floats>;
}

export interface AdamOptions {
  learningRate: number;
  /** Decay of the first and second moment. Default 0.9, 0.999. */
  betas?: readonly [number, number];
  /** Default 1e-8. */
  epsilon?: number;
  /** Default 0. */
  weightDecay?: number;
  /** Shrink the weights themselves instead of adding to the gradient: AdamW. Default false. */
  decoupled?: boolean;
}

/** Adam (Kingma & Ba, arXiv 1412.6980) and, with `decoupled`, AdamW (Loshchilov & Hutter, arXiv 1711.05101). */
export class Adam implements Optimizer {
  readonly #options: Required<AdamOptions>;
  readonly #first: Map<string, Floats>;
  readonly #second: Map<string, Floats>;
  #steps: number;

  /** @param state of an earlier run that this one goes on from; moments are written to */
  constructor(options: AdamOptions, state?: AdamState) {
    this.#first = new Map(state?.first);
    this.#second = new Map(state?.second);
    this.#steps = state?.steps ?? 0;
    this.#options = {
      betas: [0.9, 0.999],
      epsilon: 1e-8,
      weightDecay: 0,
      decoupled: false,
      ...options,
    };
  }

  /** The moments are those that later steps change: copy them, or write them out. */
  get state(): AdamState {
    return { steps: this.#steps, first: this.#first, second: this.#second };
  }

  step(values: ReadonlyMap<string, Floats>, gradients: ReadonlyMap<string, Floats>): void {
    const { learningRate, betas, epsilon, weightDecay, decoupled } = this.#options;
    const [b1, b2] = betas;
    this.#steps++;
    const rate = learningRate / (1 - b1 ** this.#steps);
    const correction = 1 / Math.sqrt(1 - b2 ** this.#steps);
    const shrink = decoupled ? 1 - learningRate * weightDecay : 1;
    const penalty = decoupled ? 0 : weightDecay;
    for (const [name, gradient] of gradients) {
      const value = valuesOf(values, name, gradient);
      const m = state(this.#first, name, gradient);
      const v = state(this.#second, name, gradient);
      for (let i = 0; i < value.length; i++) {
        const g = gradient[i] + penalty * value[i];
        m[i] += (1 - b1) * (g - m[i]);
        v[i] += (1 - b2) * (g * g - v[i]);
        value[i] = value[i] * shrink - (rate * m[i]) / (Math.sqrt(v[i]) * correction + epsilon);
      }
    }
  }
}

function valuesOf(values: ReadonlyMap<string, Floats>, name: string, gradient: Floats): Floats {
  const value = values.get(name);
  if (value?.length !== gradient.length)
    throw new Error(`${name}: ${value?.length} values, ${gradient.length} gradients`);
  return value;
}

/** What an optimizer remembers of a parameter, zero at first. */
function state(of: Map<string, Floats>, name: string, like: Floats): Floats {
  let known = of.get(name);
  if (!known) {
    known =
      like instanceof Float64Array ? new Float64Array(like.length) : new Float32Array(like.length);
    of.set(name, known);
  }
  return known;
}
