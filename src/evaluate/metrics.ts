import type { Batch, Task, TensorData } from '../data/index.js';
import { dataError } from '../errors.js';
import { decodeFloat32 } from '../onnx/index.js';

const { exp, log } = Math;

/** Measured values by name. Which way is better: see `higherIsBetter`. */
export type Metrics = Record<string, number>;

export const higherIsBetter: Record<string, boolean> = {
  accuracy: true,
  top5: true,
  r2: true,
  agreement: true,
  cosine: true,
  loss: false,
  perplexity: false,
  rmse: false,
  mae: false,
  kl: false,
  relativeError: false,
};

/** Accumulates a task's metrics batch by batch. */
export interface TaskMetric {
  add(outputs: Record<string, TensorData>, batch: Batch): void;
  result(): Metrics;
}

/**
 * @param outputs names of the model's outputs in file order; predictions are the first that is floating point.
 * @returns undefined for task `none`.
 */
export function taskMetric(task: Task, outputs: readonly string[]): TaskMetric | undefined {
  switch (task) {
    case 'classification':
      return new Classification(outputs);
    case 'lm':
      return new LanguageModel(outputs);
    case 'regression':
      return new Regression(outputs);
    case 'none':
      return undefined;
  }
}

/** Accuracy, top-5 accuracy (above ten classes) and mean cross-entropy. */
class Classification implements TaskMetric {
  #seen = 0;
  #right = 0;
  #rightInFive = 0;
  #loss = 0;
  #classes = 0;
  readonly names: readonly string[];
  constructor(names: readonly string[]) {
    this.names = names;
  }

  add(outputs: Record<string, TensorData>, batch: Batch): void {
    const scores = prediction(outputs, this.names);
    const values = toFloats(scores);
    const classes = values.length / (scores.dims[0] ?? 1);
    this.#classes = classes;
    for (let i = 0; i < batch.size; i++) {
      const label = batch.labels[i];
      if (typeof label !== 'number') {
        throw dataError('Classification needs one class number as label.', {
          got: label === undefined ? 'no label' : 'an array',
          hint: 'Add an array `label`, or pass --task none to compare with the original only.',
        });
      }
      if (!(label >= 0 && label < classes)) {
        throw dataError('A label is out of range.', {
          expected: `0 to ${classes - 1}`,
          got: String(label),
        });
      }
      const row = values.subarray(i * classes, (i + 1) * classes);
      const rank = rankOf(row, label);
      this.#seen++;
      if (rank < 1) this.#right++;
      if (rank < 5) this.#rightInFive++;
      this.#loss -= logProbabilities(row)[label];
    }
  }

  result(): Metrics {
    return {
      accuracy: this.#right / this.#seen,
      ...(this.#classes > 10 && { top5: this.#rightInFive / this.#seen }),
      loss: this.#loss / this.#seen,
    };
  }
}

/** Perplexity: each token of a window but the first is predicted from those before it. */
class LanguageModel implements TaskMetric {
  #tokens = 0;
  #loss = 0;
  readonly names: readonly string[];
  constructor(names: readonly string[]) {
    this.names = names;
  }

  add(outputs: Record<string, TensorData>, batch: Batch): void {
    const logits = prediction(outputs, this.names);
    const [, length, vocabulary] = logits.dims;
    const values = toFloats(logits);
    for (let b = 0; b < batch.size; b++) {
      const ids = batch.labels[b];
      if (logits.dims.length !== 3 || typeof ids !== 'object' || ids.data.length > length) {
        throw dataError(
          'The model is not a language model: its output does not pair with its input tokens.',
          {
            expected: 'ids [batch, sequence] in, logits [batch, sequence, vocabulary] out',
            got: `[${logits.dims.join(', ')}]`,
            hint: 'Choose another --task.',
          },
        );
      }
      for (let t = 1; t < ids.data.length; t++) {
        const at = (b * length + t - 1) * vocabulary;
        const next = Number(ids.data[t]);
        if (!(next >= 0 && next < vocabulary)) {
          throw dataError('A token is out of the vocabulary.', {
            expected: `0 to ${vocabulary - 1}`,
            got: String(next),
            hint: 'Use the tokenizer that the model was trained with.',
          });
        }
        this.#loss -= logProbabilities(values.subarray(at, at + vocabulary))[next];
        this.#tokens++;
      }
    }
  }

  result(): Metrics {
    const loss = this.#loss / this.#tokens;
    return { perplexity: Math.exp(loss), loss };
  }
}

/** Root mean squared error, mean absolute error, and the share of variance explained. */
class Regression implements TaskMetric {
  #n = 0;
  #squares = 0;
  #absolute = 0;
  #mean = 0;
  #spread = 0;
  readonly names: readonly string[];
  constructor(names: readonly string[]) {
    this.names = names;
  }

  add(outputs: Record<string, TensorData>, batch: Batch): void {
    const output = prediction(outputs, this.names);
    const values = toFloats(output);
    const width = values.length / (output.dims[0] ?? 1);
    for (let i = 0; i < batch.size; i++) {
      const label = batch.labels[i];
      const target = typeof label === 'number' ? [label] : label && toFloats(label);
      if (target?.length !== width) {
        throw dataError('Regression needs as many target values as the model puts out.', {
          expected: `${width} values an example`,
          got: target ? `${target.length}` : 'no label',
        });
      }
      for (let j = 0; j < width; j++) {
        const error = values[i * width + j] - target[j];
        this.#squares += error * error;
        this.#absolute += Math.abs(error);
        this.#n++;
        const step = target[j] - this.#mean;
        this.#mean += step / this.#n;
        this.#spread += step * (target[j] - this.#mean);
      }
    }
  }

  result(): Metrics {
    return {
      rmse: Math.sqrt(this.#squares / this.#n),
      mae: this.#absolute / this.#n,
      r2: 1 - this.#squares / this.#spread,
    };
  }
}

/** The first floating-point output. */
export function prediction(
  outputs: Record<string, TensorData>,
  names: readonly string[],
): TensorData {
  for (const name of names) {
    const value = outputs[name];
    if (value && /^float/.test(value.dtype)) return value;
  }
  throw dataError('The model has no floating-point output to evaluate.', {
    hint: 'Choose another --task.',
  });
}

/** Values as numbers; half floats are decoded. */
export function toFloats({ dtype, data }: TensorData): Float32Array | Float64Array {
  if (data instanceof Float32Array || data instanceof Float64Array) return data;
  if (dtype === 'float16' && data instanceof Uint16Array) {
    return decodeFloat32(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), 'float16');
  }
  return Float64Array.from(data as ArrayLike<number | bigint>, Number);
}

/** How many other entries are at least as large; a tie counts against `index` when it stands before. */
function rankOf(row: Float32Array | Float64Array, index: number): number {
  let rank = 0;
  for (let j = 0; j < row.length; j++) {
    // Turned around for NaN, which compares false with everything: a row with one is never right.
    if (!(row[j] <= row[index]) || (row[j] === row[index] && j < index)) rank++;
  }
  return rank;
}

/** Natural logs of the probabilities that a row of scores stands for; rows that are probabilities already are taken as such. */
export function logProbabilities(row: Float32Array | Float64Array): Float64Array {
  const logs = new Float64Array(row.length);
  if (isDistribution(row)) {
    for (let i = 0; i < row.length; i++) logs[i] = log(Math.max(row[i], 1e-12));
    return logs;
  }
  let max = Number.NEGATIVE_INFINITY;
  for (const v of row) if (v > max) max = v;
  let sum = 0;
  for (const v of row) sum += exp(v - max);
  const normalizer = max + log(sum);
  for (let i = 0; i < row.length; i++) logs[i] = row[i] - normalizer;
  return logs;
}

/** True for a row of probabilities. */
export function isDistribution(row: Float32Array | Float64Array): boolean {
  let total = 0;
  for (const v of row) {
    if (!(v >= 0)) return false;
    total += v;
  }
  return Math.abs(total - 1) < 1e-3;
}
