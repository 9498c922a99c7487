import { isStandard } from '../../../graph/nodes.js';
import { type Model, type NodeProto, readTensorBytes, tensorInfo } from '../../../onnx/index.js';
import type { ActivationRanges } from '../../compress/formats/activation-ranges.js';
import type { WeightFormat } from '../../compress/formats/layers.js';
import { storeQdq } from '../../compress/formats/qdq.js';
import { Workspace } from '../../compress/formats/workspace.js';
import { storeFloats } from './float.js';
import type { ChooseCodes, CodedLayer, StoredCodes } from './layers.js';
import { PackedStore } from './unpack.js';

/** Bits of symmetric codes that hold those of as many bits; -2 is the largest of two. */
const symmetricBits = { 2: 3, 4: 4, 8: 8 };

/**
 * Computes convolutions with one scale for each output in integers, with QuantizeLinear and
 * DequantizeLinear around them, which ONNX Runtime fuses; ternary codes are stored five to a byte and
 * unpacked to int8 at load. In place; the model comes to opset 13. Others stay as they are.
 * @param ranges of activations, by value name
 * @returns the convolutions that were written, by name
 */
export async function storeConvolutions(
  model: Model,
  choose: ChooseCodes,
  ranges: ActivationRanges,
): Promise<Map<string, StoredCodes>> {
  const formats = new Map<string, { name: string; format: WeightFormat }>();
  await storeFloats(model, async (layer) => {
    if (layer.op !== 'Conv') return undefined;
    const coded = await choose(layer);
    if (!coded || coded.codes.groups > 1 || coded.codes.offsets) return undefined;
    formats.set(layer.node.output[0], { name: layer.name, format: formatOf(coded) });
    return coded;
  });
  const written = new Map<string, StoredCodes>();
  if (formats.size === 0) return written;

  const byName = new Map([...formats.values()].map((entry) => [entry.name, entry]));
  const stored = await storeQdq(
    model,
    ({ name, node }) => (byName.get(name) ?? formats.get(node.output[0]))?.format,
    ranges,
  );
  const packed = await packWeights(model);
  for (const layer of stored) {
    if (layer.status !== 'changed') continue;
    const { name, op, shape, status, bytes, reason, integer } = layer;
    const values = packed.get(name);
    written.set(name, {
      ...{ name, op, shape, status, reason },
      kernel: integer ? 'QLinearConv' : 'float',
      bytes: values ? values.bytes : bytes,
      ...(values && { values: values.values }),
    });
  }
  return written;
}

/** Codes of symmetric formats have scales above zero. */
const formatOf = ({ codes: { scales }, bits = 2 }: CodedLayer): WeightFormat => ({
  bits: symmetricBits[bits],
  scales: Float64Array.from(scales, (scale) => Math.abs(scale) || 1),
});

interface PackedWeight {
  values: NonNullable<StoredCodes['values']>;
  bytes: number;
}

/**
 * Puts what unpacks trits in place of int8 weights that hold nothing else.
 * @returns by the name of the Conv
 */
async function packWeights(model: Model): Promise<Map<string, PackedWeight>> {
  const workspace = new Workspace(model);
  const store = new PackedStore(workspace);
  const made = new Map<string, PackedWeight>();
  const replaced = new Map<NodeProto, NodeProto[]>();
  for (const node of workspace.graph.node) {
    if (!isStandard(node) || node.opType !== 'DequantizeLinear') continue;
    const value = workspace.input(node, 0);
    const scales = workspace.constant(node, 1);
    const readers = workspace.output(node)?.consumers ?? [];
    const convolves = readers.some((use) => use.node.opType === 'Conv' && use.index === 1);
    if (!value?.initializer || value.consumers.length !== 1 || !scales || !convolves) continue;
    const { dtype, shape } = tensorInfo(value.initializer);
    if (dtype !== 'int8') continue;
    const bytes = await readTensorBytes(model, value.initializer);
    const codes = new Int8Array(bytes.buffer, bytes.byteOffset, bytes.length);
    if (!codes.every((code) => code >= -1 && code <= 1)) continue;
    const { nodes, values, bytes: stored } = store.tensor(value.name, codes, shape);
    const input = [values.weight, ...node.input.slice(1)];
    replaced.set(node, [...nodes, { ...node, input }]);
    const { elements } = tensorInfo(scales.tensor);
    for (const use of readers)
      made.set(use.node.name || use.node.output[0], { values, bytes: stored + 4 * elements });
  }
  workspace.commit(workspace.graph.node.flatMap((node) => replaced.get(node) ?? [node]));
  return made;
}
