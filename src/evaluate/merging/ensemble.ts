import type { Batch, Task, TensorData } from '../../data/index.js';
import type { Feeds } from '../../runtime/session.js';
import { logProbabilities, type Metrics, prediction, taskMetric, toFloats } from '../metrics.js';

/** Measures the mean answer of several models: of their probabilities, or of what they predict. */
export class Ensemble {
  readonly #names: readonly string[];
  readonly #task: Task;
  readonly #metric;

  /** @param names of the outputs of the first model */
  constructor(task: Task, names: readonly string[]) {
    this.#names = names;
    this.#task = task;
    this.#metric = taskMetric(task, names);
  }

  /** @param outputs of each model, under the names that the first gives them */
  add(outputs: readonly Feeds[], batch: Batch): void {
    const scores = outputs.map((output) => prediction(output, this.#names));
    const [{ dims }] = scores;
    const rows = scores.map((s) => this.#answers(s));
    const mean = rows[0].map((_, i) => rows.reduce((sum, r) => sum + r[i], 0) / rows.length);
    const answer: TensorData = { dtype: 'float32', dims, data: Float32Array.from(mean) };
    this.#metric?.add({ [this.#names[0]]: answer }, batch);
  }

  result(): Metrics {
    return this.#metric?.result() ?? {};
  }

  #answers(scores: TensorData): Float64Array {
    const values = toFloats(scores);
    if (this.#task === 'regression') return Float64Array.from(values);
    const classes = scores.dims[scores.dims.length - 1];
    const answers = new Float64Array(values.length);
    for (let at = 0; at < values.length; at += classes)
      answers.set(logProbabilities(values.subarray(at, at + classes)).map(Math.exp), at);
    return answers;
  }
}
