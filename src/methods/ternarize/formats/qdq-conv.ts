import { int, makeNode } from '../../../graph/build.js';
import { Workspace } from '../../../graph/workspace.js';
import {
  dtypeCode,
  type Model,
  type NodeProto,
  readTensorBytes,
  tensorInfo,
} from '../../../onnx/index.js';
import type { ActivationRanges } from '../../compress/formats/activation-ranges.js';
import type { StoredLayer, WeightFormat } from '../../compress/formats/layers.js';
import { storeQdq } from '../../compress/formats/qdq.js';
import { storeFloats } from './float.js';
import { type ChooseCodes, type CodedLayer, refuseOffsets, type StoredCodes } from './layers.js';
import { PackedStore, type UnpackedWeight } from './unpack.js';

/** Bits of symmetric codes that hold those of as many bits, with the least of them negated. */
const symmetricBits = { 2: 3, 4: 5, 8: 8 };

/**
 * Computes convolutions with one scale for each output in integers, with QuantizeLinear and
 * DequantizeLinear around them, which ONNX Runtime fuses; codes are packed, and unpacked to int8 at load.
 * Where a range is missing they are unpacked to floats, and `reason` says why. In place; the model comes
 * to opset 13. BatchNormalizations behind these convolutions are folded. Other layers stay as they are,
 * so do convolutions with a code of -128.
 * @param choose asked for every layer
 * @param ranges of activations, by value name
 * @returns the convolutions that were written, by the names of their nodes, which must be unique
 * @throws {ResectError} exit 5 for ops without an equal in the opset; 2 for codes with offsets
 */
export async function storeConvolutions(
  model: Model,
  choose: ChooseCodes,
  ranges: ActivationRanges,
): Promise<Map<string, StoredCodes>> {
  const formats = new Map<string, WeightFormat>();
  await storeFloats(model, async (layer) => {
    const coded = await choose(layer);
    if (!coded) return undefined;
    refuseOffsets(layer, coded);
    const { codes, groups } = coded.codes;
    if (layer.op !== 'Conv' || groups > 1 || codes.includes(-128)) return undefined;
    formats.set(layer.name, formatOf(coded));
    return coded;
  });
  if (formats.size === 0) return new Map();
  const stored = await storeQdq(model, ({ name }) => formats.get(name), ranges, {
    folds: 'chosen',
  });
  return packWeights(
    model,
    stored.filter(({ status }) => status === 'changed'),
  );
}

/** Codes of symmetric formats have scales above zero. */
const formatOf = ({ codes: { scales }, bits = 2 }: CodedLayer): WeightFormat => ({
  bits: symmetricBits[bits],
  scales: Float64Array.from(scales, (scale) => Math.abs(scale) || 1),
});

/**
 * Puts packed codes, and what unpacks them, in place of the int8 weights of convolutions: as int8 for
 * those that compute in integers, else as floats, because a DequantizeLinear would run each time.
 */
async function packWeights(
  model: Model,
  layers: readonly StoredLayer[],
): Promise<Map<string, StoredCodes>> {
  const workspace = new Workspace(model);
  const { graph, view } = workspace;
  const store = new PackedStore(workspace);
  const convolutions = new Map(graph.node.map((node) => [node.name, node]));
  const replaced = new Map<NodeProto, NodeProto[]>();
  const packed = new Map<NodeProto, UnpackedWeight>();
  const floats = new Map<NodeProto, string>();
  const written = new Map<string, StoredCodes>();
  for (const { name, op, shape, status, integer, reason } of layers) {
    const conv = convolutions.get(name);
    const dequantize = conv && view.root.values.get(conv.input[1])?.producer;
    if (!dequantize) throw new Error(`${name} reads no integers`);
    const known = packed.get(dequantize);
    const weight = known ?? (await packWeight(workspace, store, dequantize));
    packed.set(dequantize, weight);
    // Those of the weight are in front of all that read it.
    const nodes = replaced.get(dequantize) ?? [...weight.nodes];
    replaced.set(dequantize, nodes);
    if (integer) {
      const own = { ...dequantize, input: [weight.values.weight, ...dequantize.input.slice(1)] };
      if (!nodes.some(({ output }) => output[0] === own.output[0])) nodes.push(own);
    } else {
      const value = floats.get(dequantize) ?? addFloats(workspace, dequantize, weight, nodes);
      floats.set(dequantize, value);
      const input = conv.input.map((read, i) => (i === 1 ? value : read));
      replaced.set(conv, [{ ...conv, input }]);
    }
    written.set(name, {
      ...{ name, op, shape, status, reason },
      kernel: integer ? 'QLinearConv' : 'float',
      bytes: known ? 0 : weight.bytes,
      values: integer
        ? weight.values
        : { codes: weight.values.codes, weight: floats.get(dequantize) ?? '' },
    });
  }
  workspace.commit(graph.node.flatMap((node) => replaced.get(node) ?? [node]));
  return written;
}

async function packWeight(
  workspace: Workspace,
  store: PackedStore,
  dequantize: NodeProto,
): Promise<UnpackedWeight> {
  const integers = workspace.constant(dequantize, 0);
  const scales = workspace.constant(dequantize, 1);
  if (!integers || !scales) throw new Error(`${dequantize.output[0]} is not stored`);
  const bytes = await readTensorBytes(workspace.model, integers.tensor);
  const codes = new Int8Array(bytes.buffer, bytes.byteOffset, bytes.length);
  const made = store.tensor(dequantize.input[0], codes, tensorInfo(integers.tensor).shape);
  return { ...made, bytes: made.bytes + 4 * tensorInfo(scales.tensor).elements };
}

/** Adds what a DequantizeLinear along the first axis does, in ops that runtimes fold; returns its name. */
function addFloats(
  workspace: Workspace,
  dequantize: NodeProto,
  { values }: UnpackedWeight,
  nodes: NodeProto[],
): string {
  const fresh = (part: string) => workspace.names.fresh(`${dequantize.output[0]}_${part}`);
  const [cast, column, product] = [fresh('cast'), fresh('scales'), fresh('floats')];
  const rank = workspace.constant(dequantize, 0)?.axes.length ?? 1;
  const shape = BigInt64Array.from([-1, ...new Array(rank - 1).fill(1)], BigInt);
  const stored = workspace.store(
    `${dequantize.output[0]}_shape`,
    'int64',
    [rank],
    new Uint8Array(shape.buffer),
  );
  nodes.push(
    makeNode('Cast', [values.weight], cast, [int('to', dtypeCode('float32'))]),
    makeNode('Reshape', [dequantize.input[1], stored], column),
    makeNode('Mul', [cast, column], product),
  );
  return product;
}
