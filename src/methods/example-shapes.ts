import type { TensorType } from '../autodiff/tape.js';
import { inferTypes } from '../autodiff/types.js';
import { batches, randomFeeds } from '../data/index.js';
import { mainGraph } from '../graph/bodies.js';
import { tensorType } from '../graph/build.js';
import { modelInputs } from '../graph/interface.js';
import {
  dtypeCode,
  isFloat,
  type Model,
  type ModelProto,
  makeTensor,
  readTensorBytes,
  type TensorProto,
  tensorInfo,
} from '../onnx/index.js';
import type { Calibration } from './method.js';

/** Float initializers from this size on are weights, whose values tell nothing of shapes. */
const weightElements = 1024;

/** Examples at once, where the batch is open: one would be taken for an axis that broadcasts. */
const batch = 2;

export interface ExampleShapes {
  shapes: ReadonlyMap<string, TensorType>;
  /** How many examples they are for. */
  examples: number;
}

/**
 * Shapes of all values for inputs of one size: that of the data where there is some, else what random
 * inputs would have.
 * @param proto what is looked at, where it is not the model itself but one that shares its tensors
 * @throws {ResectError} exit 5 when the runtime refuses the model, 6 when no inputs can be made up
 */
export async function exampleShapes(
  model: Model,
  calibration?: Calibration,
  proto = model.proto,
): Promise<ExampleShapes> {
  const sizes = await inputSizes(proto, calibration);
  const graph = mainGraph(proto);
  const weights = graph.initializer.filter((tensor) => {
    const { dtype, elements } = tensorInfo(tensor);
    return isFloat(dtype) && elements >= weightElements;
  });
  const taken = new Set(weights.map(({ name }) => name));
  const input = [
    ...graph.input.flatMap((value) => {
      const dims = sizes.get(value.name ?? '');
      const elemType = value.type?.tensorType?.elemType ?? 0;
      if (taken.has(value.name)) return [];
      return dims ? [{ ...value, type: tensorType(elemType, dims) }] : [value];
    }),
    ...weights.map((tensor) => {
      const { name, dtype, shape } = tensorInfo(tensor);
      return { name, type: tensorType(dtypeCode(dtype), shape) };
    }),
    // The runtime would make them dense, however large that is.
    ...(graph.sparseInitializer ?? []).map(({ values, dims = [] }) => ({
      name: values?.name,
      type: tensorType(values?.dataType ?? 0, dims.map(Number)),
    })),
  ];
  const initializer: TensorProto[] = [];
  for (const tensor of graph.initializer)
    if (!taken.has(tensor.name)) initializer.push(await inline(model, tensor));
  const small = { ...graph, input, initializer, sparseInitializer: [] };
  const shapes = await inferTypes({ ...proto, graph: small });
  return { shapes, examples: [...sizes.values()].find((dims) => dims.length > 0)?.[0] ?? 1 };
}

/** The tensor with its bytes in it, as a model that is no file must have them. */
async function inline(model: Model, tensor: TensorProto): Promise<TensorProto> {
  const info = tensorInfo(tensor);
  if (info.place !== 'external') return tensor;
  return makeTensor({ ...info, bytes: await readTensorBytes(model, tensor) });
}

/** Dims of every input that is fed. */
async function inputSizes(
  proto: ModelProto,
  calibration: Calibration | undefined,
): Promise<Map<string, number[]>> {
  const specs = modelInputs(proto);
  let feeds = calibration ? undefined : randomFeeds(specs, batch, 0);
  if (calibration) {
    const { dataset, indices } = calibration;
    const some = Array.from({ length: batch }, (_, i) => indices[i % indices.length]);
    for await (const read of batches(dataset, some, batch, specs)) {
      feeds = read.feeds;
      break;
    }
  }
  return new Map(Object.entries(feeds ?? {}).map(([name, { dims }]) => [name, [...dims]]));
}
