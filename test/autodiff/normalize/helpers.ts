import { Tensor } from 'onnxruntime-node';
import { emptyGraph } from '../../../src/graph/build.js';
import {
  type AttributeProto,
  AttributeType,
  type DType,
  type ModelProto,
  type NodeProto,
  type TensorProto,
} from '../../../src/onnx/index.js';
import { value } from '../../support/protos.js';
import { distance, floatTensor, runOnce } from '../../support/run.js';

export const floatList = (name: string, floats: number[]): AttributeProto => ({
  name,
  type: AttributeType.floats,
  floats,
});

/** Numbers between -1 and 1 that look random; the same for the same seed. */
export function noise(dims: readonly number[], seed = 1): Float32Array {
  const count = dims.reduce((a, b) => a * b, 1);
  return Float32Array.from({ length: count }, (_, i) => {
    const v = Math.sin((i + 1) * 12.9898 + seed * 78.233) * 43758.5453;
    return 2 * (v - Math.floor(v)) - 1;
  });
}

export const feed = (dims: number[], seed?: number): Tensor => floatTensor(dims, noise(dims, seed));

export const int32s = (dims: number[], values: number[]): Tensor =>
  new Tensor('int32', Int32Array.from(values), dims);

export const int64s = (dims: number[], values: number[]): Tensor =>
  new Tensor('int64', BigInt64Array.from(values, BigInt), dims);

export interface Case {
  opset: number;
  nodes: NodeProto[];
  feeds: Record<string, Tensor>;
  initializers?: TensorProto[];
  /** Names of the outputs; default `y`. */
  outputs?: string[];
}

/** The model of a case; the types of its outputs are left to the runtime. */
export function modelOf({
  opset,
  nodes,
  feeds,
  initializers = [],
  outputs = ['y'],
}: Case): ModelProto {
  return {
    irVersion: 8,
    opsetImport: [
      { domain: '', version: opset },
      { domain: 'com.microsoft', version: 1 },
    ],
    graph: {
      ...emptyGraph('case'),
      node: nodes,
      initializer: initializers,
      input: Object.entries(feeds).map(([name, t]) => value(name, [...t.dims], t.type as DType)),
      output: outputs.map((name) => ({ name })),
    },
  };
}

/** Runs both models on the same feeds; their outputs must agree within `tolerance`. */
export async function expectSame(
  before: string | ModelProto,
  after: ModelProto,
  feeds: Record<string, Tensor>,
  tolerance = 0,
): Promise<void> {
  const expected = await runOnce(before, feeds);
  const got = await runOnce(after, feeds);
  expect(Object.keys(got)).toEqual(Object.keys(expected));
  for (const [name, output] of Object.entries(expected))
    expect(distance(output, got[name])).toBeLessThanOrEqual(tolerance);
}
