import type { Batch, Task, TensorData } from '../../data/index.js';
import { type Metrics, prediction, taskMetric, toFloats } from '../metrics.js';
import { crossEntropies, entropies } from './membership.js';
import { isRight, type ScoreKind, toLogProbabilities } from './rows.js';

/** What a model did on one set of examples. */
export interface Observation {
  samples: number;
  /** The task's metrics. */
  metrics: Metrics;
  /** Entropy of each prediction, in nats; empty but for classification. */
  entropies: Float64Array;
  /** Loss of each example: cross-entropy, mean cross-entropy of its tokens, mean absolute error. */
  losses: Float64Array;
  /** By class: examples and those that were right; empty but for classification. */
  classes: Map<number, { samples: number; right: number }>;
  /** Predictions [n, width] of a regression; empty otherwise. */
  predictions: Float64Array;
}

/** Gathers what is told of a model's outputs, batch by batch; the outputs are not kept. */
export class Observer {
  readonly #task: Task;
  readonly #labelled: boolean;
  readonly #outputs: readonly string[];
  readonly #kind: ScoreKind;
  readonly #metric;
  readonly #entropies: number[] = [];
  readonly #losses: number[] = [];
  readonly #predictions: number[] = [];
  readonly #classes: Observation['classes'] = new Map();
  #samples = 0;

  /**
   * @param outputs names of the model's outputs, in its order
   * @param kind what a classifier puts out: a few rows of logits can look like probabilities, so it is
   *   decided once for the model
   * @param labelled false for examples without labels, of which only entropies and predictions are told
   */
  constructor(task: Task, outputs: readonly string[], kind: ScoreKind, labelled = true) {
    this.#labelled = labelled;
    this.#task = task;
    this.#kind = kind;
    this.#outputs = outputs;
    this.#metric = labelled ? taskMetric(task, outputs) : undefined;
  }

  /** @returns the log-probabilities of a classifier's rows, [batch.size, width] */
  add(outputs: Record<string, TensorData>, batch: Batch): Rows | undefined {
    this.#metric?.add(outputs, batch);
    this.#samples += batch.size;
    if (this.#task === 'classification') return this.#addClasses(outputs, batch);
    if (this.#task === 'lm' && this.#labelled) this.#addSequences(outputs, batch);
    if (this.#task === 'regression') this.#addValues(outputs, batch);
    return undefined;
  }

  #addClasses(outputs: Record<string, TensorData>, batch: Batch): Rows {
    const { scores, width } = rowsOf(outputs, this.#outputs, batch);
    const logs = toLogProbabilities(scores, width, this.#kind);
    this.#entropies.push(...entropies(logs, width));
    if (!this.#labelled) return { scores: logs, width };
    const labels = batch.labels.map(Number);
    this.#losses.push(...crossEntropies(logs, width, labels));
    for (const [i, label] of labels.entries()) {
      const seen = this.#classes.get(label) ?? { samples: 0, right: 0 };
      seen.samples++;
      if (isRight(scores.subarray(i * width, (i + 1) * width), label)) seen.right++;
      this.#classes.set(label, seen);
    }
    return { scores: logs, width };
  }

  /** Sequences come one in a batch. */
  #addSequences(outputs: Record<string, TensorData>, batch: Batch): void {
    const one = taskMetric('lm', this.#outputs);
    one?.add(outputs, batch);
    this.#losses.push(one?.result().loss ?? Number.NaN);
  }

  #addValues(outputs: Record<string, TensorData>, batch: Batch): void {
    const { scores, width } = rowsOf(outputs, this.#outputs, batch);
    this.#predictions.push(...scores);
    if (!this.#labelled) return;
    for (const [i, label] of batch.labels.entries()) {
      const target = typeof label === 'object' ? toFloats(label) : [Number(label)];
      let error = 0;
      for (let j = 0; j < width; j++) error += Math.abs(scores[i * width + j] - target[j]);
      this.#losses.push(error / width);
    }
  }

  result(): Observation {
    return {
      samples: this.#samples,
      metrics: this.#metric?.result() ?? {},
      entropies: Float64Array.from(this.#entropies),
      losses: Float64Array.from(this.#losses),
      classes: this.#classes,
      predictions: Float64Array.from(this.#predictions),
    };
  }
}

/** Rows of numbers, [n, width]. */
export interface Rows {
  scores: Float32Array;
  width: number;
}

/** The predictions of the examples that count. */
export function rowsOf(
  outputs: Record<string, TensorData>,
  names: readonly string[],
  batch: Batch,
): Rows {
  const output = prediction(outputs, names);
  const values = toFloats(output);
  const width = values.length / (output.dims[0] ?? 1);
  const own = values.subarray(0, batch.size * width);
  return { scores: own instanceof Float32Array ? own : Float32Array.from(own), width };
}
