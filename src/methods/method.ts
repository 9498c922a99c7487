import type { z } from 'zod';
import type { Dataset, Task } from '../data/index.js';
import type { Model } from '../onnx/index.js';

/** Examples that a method may look at, in the order they are to be used. */
export interface Calibration {
  dataset: Dataset;
  indices: number[];
}

/** Labelled examples, for methods that look at labels. */
export interface TaskData extends Calibration {
  task: Task;
}

/** @param detail what is worth watching, such as the present loss */
export type Progress = (stage: string, done: number, total: number, detail?: string) => void;

/** What surrounds a method: data, limits and the choice of layers. */
export interface Context {
  calibration?: Calibration;
  /** What is to be forgotten. */
  forget?: TaskData;
  /** Training examples that are to be kept, in the order given. */
  retain?: TaskData;
  /** Examples that results are measured on; never trained on. */
  test?: TaskData;
  /** Models that are merged with the one that is edited, in the order given. */
  others?: Model[];
  /** The model that those to be merged were all made from. */
  base?: Model;
  /** How much worse a metric may get, as the user's gates say. */
  maxDrop?: Readonly<Record<string, number>>;
  /** How large the file may get, in bytes, as the user's gates say. */
  maxBytes?: number;
  /** Whether a layer, by name, is among those that the user chose. */
  selects: (layer: string) => boolean;
  /** Files that its parameters name may be replaced. */
  force?: boolean;
  threads: number;
  seed: number;
  progress: Progress;
}

/** What a method did, or would do, to one layer. */
export interface LayerReport {
  name: string;
  op: string;
  /** Of its weight; [out, in] of a matrix. Absent where the layer has none that we can see. */
  shape?: number[];
  status: 'changed' | 'unchanged' | 'skipped';
  /** Why it was skipped or left as it was. */
  reason?: string;
}

/** What a method did to a model. */
export interface Surgery<L extends LayerReport = LayerReport> {
  layers: L[];
  /** Names of the stored tensors whose values changed; all others must be as before. */
  changedTensors: string[];
  /** What the user should know: fallbacks, choices made on their behalf, limits. */
  notes: string[];
  /** Multiply-accumulates of one example in the layers whose shapes are known, where they change. */
  macs?: { before: number; after: number };
  /** Values of parameters that were left open, and depend on the model or the data. */
  settled?: Record<string, unknown>;
  /** How training went, of methods that train. */
  training?: TrainingStage[];
}

/** A stage of training, with the mean losses of each epoch, by name. */
export interface TrainingStage {
  stage: string;
  epochs: readonly Readonly<Record<string, number>>[];
  /** Wall time in this run. */
  seconds: number;
}

/** What a method would do, as far as that can be told without data. */
export interface Plan<L extends LayerReport = LayerReport> {
  layers: L[];
  /** Choices that it would make, and what else there is to choose from. */
  notes: string[];
}

/** A column of the table of layers, in reports. */
export interface LayerColumn<L extends LayerReport> {
  header: string;
  /** Empty where the layer has no such value. */
  value: (layer: L) => string;
  /** Only in reports that are files. */
  wide?: boolean;
}

type Need = 'required' | 'optional' | 'none';

/** Data that a method takes; what is not named it does not take. */
export interface Needs {
  calibration: Need;
  forget?: Need;
  retain?: Need;
  /** Models to merge with: exactly one, or one and more. */
  others?: 'one' | 'some';
  base?: Need;
}

/**
 * A method is one value: flags, help, the schema of recipes and its page in docs are made from it.
 */
export interface Method<S extends z.ZodObject = z.ZodObject, L extends LayerReport = LayerReport> {
  name: string;
  summary: string;
  references: { title: string; arxiv: string }[];
  parameters: S;
  /** What reports show of a layer, beside its name, shape and status. */
  columns: LayerColumn<L>[];
  /** An example of the command line, for help. */
  examples: string[];
  /** What it needs besides the model, given its parameters. */
  needs(parameters: z.infer<S>): Needs;
  /** Files besides model and data that its parameters name. */
  files?(parameters: z.infer<S>): { reads: string[]; writes: string[] };
  /**
   * Edits `model` in memory (its file is never touched) and tells what changed, layer by layer.
   * @throws {ResectError} exit 5 when the model has nothing that the method can treat.
   */
  apply(model: Model, parameters: z.infer<S>, context: Context): Promise<Surgery<L>>;
  /** Which layers `apply` would change or skip, and why, without looking at data or weights. */
  plan(
    model: Model,
    parameters: z.infer<S>,
    context: Pick<Context, 'selects' | 'others' | 'base'>,
  ): Plan<L> | Promise<Plan<L>>;
}
