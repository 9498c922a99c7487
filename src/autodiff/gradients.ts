import type { InputSpec, TensorData } from '../data/index.js';
import { modelError, ResectError } from '../errors.js';
import { mainGraph } from '../graph/bodies.js';
import { opName } from '../graph/nodes.js';
import type { Parameter } from '../graph/parameters.js';
import { removeDeadNodes } from '../graph/topology.js';
import { encodeModel, type Model, type ModelProto } from '../onnx/index.js';
import { type Feeds, Session } from '../runtime/session.js';
import type { Runnable, SessionThread } from '../runtime/session-thread.js';
import { classTarget, floatFeed, inputFeeds, weightFeed } from './feeds.js';
import { foldConstants } from './fold.js';
import { gradientGraph, type Head, removeUnreadInputs } from './gradient-graph.js';
import { graphHead, type LossGraph, lossFeeds, withLossGraph } from './loss-graph.js';
import {
  beforeActivation,
  type LossName,
  lossHead,
  lossOutput,
  lossShape,
  rowsOutput,
  targetInput,
  weightInput,
} from './losses.js';
import type { Floats } from './optimizer.js';
import { Refusal } from './refusal.js';
import { NoGradientError } from './reverse.js';
import type { Tape } from './tape.js';
import { type Trained, type TrainingCopy, trainingCopy, withDims } from './training-copy.js';

export interface GradientOptions {
  /** A known loss, or a graph of one's own; or names of values whose gradients are fed: see `Target.seeds`. */
  loss: LossName | LossGraph | { seeds: readonly string[] };
  /** The output that a known loss is of, and that `predict` gives; any value of the main graph. Default: the first output that is floating point. */
  output?: string;
  /** Which parameters to differentiate by; default: all. */
  parameters?: (parameter: Parameter) => boolean;
  /** Default 1: results are then the same bits in every run. */
  threads?: number;
  /** Where it runs; default: the caller's thread, which is blocked meanwhile. */
  thread?: SessionThread;
}

/** What a batch is compared with. */
export interface Target {
  /** See `LossName`; absent for `squared-norm`. */
  target?: TensorData;
  /** w [rows] of L = Σ w_i l_i; default 1 / rows, the mean. */
  weight?: Floats;
  /** dL/dv by name of v, for gradients without a loss in the graph. */
  seeds?: Feeds;
  /** What a `LossGraph` is fed. */
  inputs?: Feeds;
}

export interface GradientStep {
  /** L = Σ w_i l_i; NaN when seeds were fed. */
  loss: number;
  /** l [rows]; empty for seeds and for a `LossGraph`. */
  losses: Floats;
  /** The values that a `LossGraph` shows, by name. */
  shown: Feeds;
  /** dL/dθ by parameter name, in the parameter's own layout. */
  gradients: Map<string, Floats>;
}

/** See `GradientModel.reachable`. */
export interface Reachable {
  model: GradientModel;
  /** Parameters that were wanted and are not reached, and the op that is in their way. */
  unreachable?: { parameters: string[]; op: string };
}

/** Graphs for so many shapes of input are kept ready. */
const keptShapes = 4;

/**
 * A model that computes the gradients of a loss by its parameters, in ONNX Runtime. Graphs are made
 * when the first batch of a shape comes in. Release it when done.
 */
export class GradientModel {
  /** What is differentiated by. */
  readonly parameters: readonly Parameter[];
  /** The values of all parameters, which every run reads: change them in place. Float32, or float64 where the model has that. */
  readonly values: ReadonlyMap<string, Floats>;
  /** The inputs that batches are made for. */
  readonly inputs: readonly InputSpec[];
  /** The output that the loss is of, and that `predict` gives. */
  readonly output: string;
  readonly #copy: TrainingCopy;
  readonly #trained: readonly Trained[];
  readonly #options: GradientOptions;
  readonly #runners = new Map<string, Promise<Runner>>();

  private constructor(copy: TrainingCopy, options: GradientOptions) {
    const { parameters: wants = () => true } = options;
    this.#copy = copy;
    this.#trained = copy.trained.filter(wants);
    this.#options = options;
    this.parameters = this.#trained;
    const own = new Set(this.#trained.map(({ name }) => name));
    this.values = new Map([...copy.values].filter(([name]) => own.has(name)));
    this.inputs = copy.inputs;
    this.output = options.output ?? copy.output;
  }

  /** @throws {ResectError} exit 5 for a model that cannot be prepared: see `normalize`. */
  static async open(model: Model, options: GradientOptions): Promise<GradientModel> {
    return new GradientModel(await trainingCopy(model, options.parameters), options);
  }

  /**
   * The same model under another loss, or by fewer of its parameters. Both work on the same values: what
   * one changes the other reads. Each is released by itself.
   */
  with(options: Partial<GradientOptions>): GradientModel {
    return new GradientModel(this.#copy, { ...this.#options, ...options });
  }

  /**
   * The loss of a batch and its gradients.
   * @throws {NoGradientError} where an op without a rule is in the way
   * @throws {ResectError} exit 6 when the batch does not fit the model
   */
  async run(feeds: Feeds, target: Target = {}): Promise<GradientStep> {
    const batch = this.#feeds(feeds, target);
    return this.#step(await this.#runner(batch, 'gradients'), batch, target);
  }

  /**
   * As `run`, with Σ_i (∂(w_i l_i)/∂θ)² over the samples i in the place of gradients: exact, in one
   * run. Samples run along the first axis of the inputs and of the rows.
   * @returns undefined where the graph does not tell samples apart; run them one by one
   * @throws as `run`
   */
  async runSquares(feeds: Feeds, target: Target = {}): Promise<GradientStep | undefined> {
    const batch = this.#feeds(feeds, target);
    try {
      return await this.#step(await this.#runner(batch, 'squares'), batch, target);
    } catch (error) {
      if (error instanceof Refusal) return undefined;
      throw error;
    }
  }

  /**
   * The same model by those of its parameters that gradients reach, and what keeps them from the others.
   * @param feeds a batch, of which only the shapes count
   * @throws {NoGradientError} when they reach none
   */
  async reachable(feeds: Feeds, target?: Target): Promise<Reachable> {
    try {
      await this.#runner(this.#feeds(feeds, target), 'gradients');
      return { model: this };
    } catch (error) {
      if (!(error instanceof NoGradientError) || error.reachable.length === 0) throw error;
      const names = new Set(error.reachable);
      const model = this.with({ parameters: ({ name }) => names.has(name) });
      return { model, unreachable: { parameters: error.unreachable, op: error.op } };
    }
  }

  /**
   * The output that the loss is of, as the model with the present values gives it; in float32 where the
   * model is in half precision.
   * @throws {ResectError} exit 6 when the batch does not fit the model
   */
  async predict(feeds: Feeds): Promise<TensorData> {
    const batch = inputFeeds(this.inputs, feeds);
    const { session } = await this.#runner(batch, 'predict');
    const outputs = await session.run({ ...this.#copy.weights, ...batch });
    return outputs[this.output];
  }

  /**
   * Rows of a known loss for inputs of these shapes, and values in a row: see `lossShape`.
   * @throws as `run`
   */
  async rows(feeds: Feeds): Promise<readonly [rows: number, width: number]> {
    return (await this.#runner(inputFeeds(this.inputs, feeds), 'gradients')).shape;
  }

  /**
   * The value that a known loss is computed from: the output, or what stands before its Softmax or Sigmoid.
   * @throws as `run`
   */
  async lossSource(feeds: Feeds): Promise<string> {
    return (await this.#runner(inputFeeds(this.inputs, feeds), 'gradients')).source;
  }

  async release(): Promise<void> {
    const runners = [...this.#runners.values()];
    this.#runners.clear();
    for (const runner of await Promise.allSettled(runners))
      if (runner.status === 'fulfilled') await runner.value.session.release();
  }

  /** The batch, and what a loss graph is fed with it. */
  #feeds(feeds: Feeds, { inputs }: Target = {}): Feeds {
    const { loss } = this.#options;
    const batch = inputFeeds(this.inputs, feeds);
    return isGraph(loss) ? { ...batch, ...lossFeeds(loss, inputs) } : batch;
  }

  async #runner(feeds: Feeds, kind: Kind): Promise<Runner> {
    const dims = Object.entries(feeds).map(([name, value]) => [name, value.dims]);
    const key = JSON.stringify([kind, dims]);
    let runner = this.#runners.get(key);
    // Looked up last is dropped last.
    this.#runners.delete(key);
    runner ??= this.#build(feeds, kind);
    this.#runners.set(key, runner);
    if (this.#runners.size > keptShapes) {
      const [oldest] = this.#runners.keys();
      const dropped = this.#runners.get(oldest);
      this.#runners.delete(oldest);
      await dropped?.then(({ session }) => session.release()).catch(() => {});
    }
    return runner;
  }

  async #build(feeds: Feeds, kind: Kind): Promise<Runner> {
    const { loss, threads = 1, thread = Session } = this.#options;
    const open = (model: ModelProto) =>
      thread.open(encodeModel(model), { threads, memoryPattern: false });
    if (kind === 'predict') {
      const forward = await folded(this.#copy.proto, feeds, [this.output]);
      const graph = { ...mainGraph(forward), output: [{ name: this.output }] };
      removeDeadNodes(graph);
      removeUnreadInputs(graph);
      const session = await open({ ...forward, graph });
      return { session, gradients: new Map(), shape: [0, 0], source: '' };
    }
    const forward = isGraph(loss)
      ? await folded(withLossGraph(this.#copy.proto, loss), feeds, [loss.loss, ...loss.shown])
      : await folded(this.#copy.proto, feeds, isSeeds(loss) ? loss.seeds : [this.output]);
    const graph = mainGraph(forward);
    let shape: [number, number] = [0, 0];
    let source = '';
    const head = (t: Tape): Head => {
      if (isGraph(loss)) return graphHead(t, loss);
      if (isSeeds(loss)) return seedHead(t, loss.seeds);
      const producers = new Map(graph.node.flatMap((n) => n.output.map((o) => [o, n] as const)));
      source = beforeActivation(t, loss, producers, this.output);
      shape = lossShape(loss, t.dims(source));
      return lossHead(t, loss, source);
    };
    const squares = kind === 'squares' ? this.#samples(feeds) : undefined;
    const parameterOf = new Map(
      this.#trained.flatMap(({ name, copies }) => copies.map((copy) => [copy, name])),
    );
    try {
      const made = await gradientGraph(forward, [...parameterOf.keys()], head, { squares });
      return { session: await open(made.model), gradients: made.gradients, shape, source };
    } catch (error) {
      if (error instanceof NoGradientError) throw error.renamed(parameterOf);
      if (kind === 'squares' || !(error instanceof Refusal)) throw error;
      throw modelError('A gradient cannot be computed.', { got: error.message });
    }
  }

  /** How many samples a batch holds: the length of the first axis of the first input that has one. */
  #samples(feeds: Feeds): number {
    if (this.#trained.some(({ copies }) => copies.length > 1))
      throw new Refusal('a parameter that several layers share is squared as a whole');
    const batch = this.inputs.find(({ name }) => feeds[name].dims.length > 0);
    if (!batch) throw new Refusal('no input has an axis for samples');
    return feeds[batch.name].dims[0];
  }

  async #step(runner: Runner, feeds: Feeds, target: Target): Promise<GradientStep> {
    const { session, gradients: outputOf } = runner;
    const outputs = await session.run({
      ...this.#copy.weights,
      ...feeds,
      ...this.#targetFeeds(runner, target),
    });
    const gradients = new Map<string, Floats>();
    // Parameters that are added to each other have one gradient: whoever changes one must not change both.
    const given = new Set<string>();
    for (const { name, copies } of this.#trained) {
      const parts = copies.flatMap((copy) => {
        const output = outputOf.get(copy);
        if (output === undefined) return [];
        const data = outputs[output].data as Floats;
        const own = given.has(output) ? data.slice() : data;
        given.add(output);
        return [own];
      });
      gradients.set(name, sum(parts, this.values.get(name) as Floats));
    }
    const { loss } = this.#options;
    const [total, shown] = isGraph(loss) ? [loss.loss, loss.shown] : [lossOutput, []];
    return {
      loss: Number(outputs[total]?.data[0] ?? Number.NaN),
      losses: (outputs[rowsOutput]?.data ?? new Float32Array()) as Floats,
      shown: Object.fromEntries(shown.map((name) => [name, outputs[name]])),
      gradients,
    };
  }

  /** What the loss, or the seeds in its place, are fed. */
  #targetFeeds({ session, shape }: Runner, { target, weight, seeds }: Target): Feeds {
    const { loss } = this.#options;
    const feeds: Feeds = {};
    const [rows, width] = shape;
    for (const spec of session.inputs) {
      if (spec.name === weightInput) feeds[weightInput] = weightFeed(weight, spec, rows);
      else if (spec.name === targetInput)
        feeds[targetInput] =
          spec.dtype === 'int64'
            ? classTarget(target, spec, width)
            : floatFeed(target, spec, 'target');
      else if (isSeeds(loss)) {
        const value = loss.seeds.find((name) => seedInput(name) === spec.name);
        if (value !== undefined)
          feeds[spec.name] = floatFeed(seeds?.[value], spec, `gradient of ${value}`);
      }
    }
    return feeds;
  }
}

/**
 * The gradients of a loss by the parameters of a model.
 *
 * ```ts
 * const model = await gradients(await readModel('model.onnx'), { loss: 'cross-entropy' });
 * const { loss, gradients } = await model.run({ image }, { target: labels });
 * ```
 */
export const gradients = (model: Model, options: GradientOptions): Promise<GradientModel> =>
  GradientModel.open(model, options);

/** A session for inputs of one shape. */
interface Runner {
  session: Runnable;
  /** Output by parameter copy. */
  gradients: Map<string, string>;
  /** See `lossShape`. */
  shape: readonly [rows: number, width: number];
  /** What the loss is computed from. */
  source: string;
}

/** What a graph is for. One without gradients is several times faster: the runtime executes all there is. */
type Kind = 'predict' | 'gradients' | 'squares';

/**
 * The model for inputs of one shape, with constants folded.
 * @param kept values that the runtime must not simplify away
 * @throws {ResectError} exit 5 that tells of control flow, where that is what the runtime fails on
 */
async function folded(
  model: ModelProto,
  feeds: Feeds,
  kept: readonly string[],
): Promise<ModelProto> {
  const fold = (m: ModelProto, shapes: Feeds) => foldConstants(withDims(m, shapes, kept));
  const control = model.graph?.node.find((n) => ['If', 'Loop', 'Scan'].includes(opName(n)));
  if (!control) return fold(model, feeds);
  try {
    // ONNX Runtime 1.30 fails, or crashes, when it resolves a branch within a branch at once, as it
    // does where shapes decide of the inner one.
    return await fold(await fold(model, {}), feeds);
  } catch (error) {
    if (!(error instanceof ResectError)) throw error;
    throw modelError('The model cannot be prepared for inputs of this shape.', {
      where: `node ${control.name || control.output[0]} (${opName(control)})`,
      got: error.detail.got,
      hint: 'Where an input decides which way the model goes, store that input as a constant.',
      cause: error,
    });
  }
}

const isSeeds = (loss: GradientOptions['loss']): loss is { seeds: readonly string[] } =>
  typeof loss === 'object' && 'seeds' in loss;

const isGraph = (loss: GradientOptions['loss']): loss is LossGraph =>
  typeof loss === 'object' && 'nodes' in loss;

const seedInput = (value: string): string => `resect/seed/${value}`;

function seedHead(t: Tape, values: readonly string[]): Head {
  return {
    seeds: new Map(values.map((value) => [value, seedInput(value)])),
    inputs: values.map((value) => ({
      name: seedInput(value),
      type: { dtype: t.dtype(value), dims: t.dims(value) },
    })),
    outputs: [],
  };
}

/** The sum of what reached a parameter's copies; zeros where nothing did. */
function sum(parts: Floats[], like: Floats): Floats {
  if (parts.length === 1) return parts[0];
  const total =
    like instanceof Float64Array ? new Float64Array(like.length) : new Float32Array(like.length);
  for (const part of parts) for (let i = 0; i < total.length; i++) total[i] += part[i];
  return total;
}
