import type { DType, TypedArray } from './dtypes.js';

export type Task = 'classification' | 'lm' | 'regression' | 'none';

/** A dense C-order tensor. `float16` is kept as its bits in a Uint16Array, `bool` as 0/1 in a Uint8Array. */
export interface TensorData {
  dtype: DType;
  dims: number[];
  data: TypedArray;
}

/** One input of a model as the runtime reports it: a dynamic dimension is its symbol, or '' when it has none. */
export interface InputSpec {
  name: string;
  dtype: string;
  dims: (number | string)[];
}

export interface Example {
  /** Keyed by the model's input names; without the batch axis, unless the model has none. */
  inputs: Record<string, TensorData>;
  /**
   * Class index, regression target or targets. For language models the token ids `[tokens]`, int64:
   * the logits at position t are to predict `label[t + 1]`.
   */
  label?: number | TensorData;
  /** Number of tokens, when the example is a sequence of tokens. */
  tokens?: number;
}

export interface Dataset {
  readonly path: string;
  readonly task: Task;
  readonly length: number;
  /** Every file that determines the examples: data, labels, card, tokenizer, list of indices. */
  readonly files: string[];
  example(i: number): Promise<Example>;
  /** The label of example i without reading its inputs; absent when labels are not single numbers. */
  label?(i: number): number;
  /** Inputs with one value for all examples; a number fills the whole input. */
  readonly constants?: Readonly<Record<string, number | TensorData>>;
  /** What fills each input behind the last token of a shorter sequence; 0 where not given. */
  readonly padding?: Readonly<Record<string, number>>;
}

export interface Batch {
  /** Every input of the model, with its batch axis. */
  feeds: Record<string, TensorData>;
  /** Of the first `size` rows. */
  labels: (number | TensorData | undefined)[];
  /** Examples that count; a model with a frozen batch may have more rows, which repeat the last example. */
  size: number;
  /** Valid tokens of the first `size` rows, when they are token sequences; what is behind them is padding. */
  tokens?: number[];
}
