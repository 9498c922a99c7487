import type { z } from 'zod';
import { type Dataset, openDataset, type Task } from '../../../src/data/index.js';
import { remembered } from '../../../src/evaluate/forgetting/remembered.js';
import { modelInputs } from '../../../src/graph/interface.js';
import type { Context, LayerReport, TaskData } from '../../../src/methods/method.js';
import type { UnlearnLayer } from '../../../src/methods/unlearn/layers.js';
import { ssd } from '../../../src/methods/unlearn/ssd/method.js';
import { allTensors, type Model, readModel, readTensorBytes } from '../../../src/onnx/index.js';
import { goldenPath, readIndices } from '../unlearn/golden-ssd.js';

/** Examples of a data set: all, or those at `indices`. */
export async function examples(
  model: Model,
  path: string,
  { indices, task }: { indices?: number[]; task?: Task } = {},
): Promise<TaskData> {
  const dataset = await openDataset(path, modelInputs(model.proto), { task });
  return {
    dataset,
    indices: indices ?? Array.from({ length: dataset.length }, (_, i) => i),
    task: dataset.task,
  };
}

/** What a method is given, of these sets. */
export const around = (sets: Partial<Context>): Context => ({
  selects: () => true,
  threads: 1,
  seed: 0,
  progress: () => {},
  ...sets,
});

let training: Promise<Dataset> | undefined;

export const goldenModel = (name: 'mlp' | 'cnn' | 'cnn_folded'): Promise<Model> =>
  readModel(goldenPath(`${name === 'mlp' ? 'mlp' : 'cnn'}/${name}.onnx`));

/** The forget and retain set of a golden request, in the order of its files of indices. */
export async function goldenSets(model: Model, request: 'class3' | 'random100') {
  training ??= openDataset(goldenPath('data/train.yaml'), modelInputs(model.proto)).then(
    remembered,
  );
  const dataset = await training;
  const set = (name: string): TaskData => ({
    dataset,
    indices: readIndices(`data/idx_${request}_${name}.npy`),
    task: 'classification',
  });
  return { forget: set('forget'), retain: set('retain') };
}

export type SsdInput = z.input<typeof ssd.parameters>;

/** Dampens a model in memory. */
export const dampenInMemory = (model: Model, parameters: SsdInput, sets: Partial<Context>) =>
  ssd.apply(model, ssd.parameters.parse(parameters), around(sets));

/** Raw values of every stored tensor, edits applied, by its place in the model. */
export async function tensorBytes(model: Model): Promise<{ name: string; bytes: Buffer }[]> {
  const found: { name: string; bytes: Buffer }[] = [];
  for (const { tensor } of allTensors(model.proto))
    found.push({
      name: tensor.name ?? '',
      bytes: Buffer.from(await readTensorBytes(model, tensor)),
    });
  return found;
}

export const changedOf = (layers: readonly LayerReport[]): Record<string, number> =>
  Object.fromEntries(
    (layers as readonly UnlearnLayer[]).flatMap(({ name, changed }) =>
      changed === undefined ? [] : [[name, changed]],
    ),
  );

/** Elements 4 bytes wide in which two tensors differ. */
export function differing(a: Buffer, b: Buffer, width = 4): number {
  if (a.length !== b.length) throw new Error(`${a.length} bytes and ${b.length}`);
  let count = 0;
  for (let at = 0; at < a.length; at += width)
    if (a.compare(b, at, at + width, at, at + width) !== 0) count++;
  return count;
}
