import { int, makeNode } from '../../../graph/build.js';
import { nameLayers, type WeightLayer } from '../../../graph/weight-layers.js';
import type { Workspace } from '../../../graph/workspace.js';
import { dtypeCode, type Model, type NodeProto } from '../../../onnx/index.js';
import type { ActivationRanges } from '../../compress/formats/activation-ranges.js';
import { gatherAddition, scaledRest, storeBias, without } from './bias.js';
import {
  type ChooseCodes,
  type CodedLayer,
  refuseOffsets,
  replaceLayers,
  type StoredCodes,
  type WriteLayer,
  type WrittenLayer,
} from './layers.js';
import { foldFactor, productFactor, productProblem } from './product.js';
import { storeConvolutions } from './qdq-conv.js';
import { floatWriter } from './standard.js';
import { PackedStore } from './unpack.js';

/**
 * Packs codes five to a byte, unpacked to int8 at load, and computes MatMul and Gemm in integers, with
 * activations rounded to 8 bits in each run: the fastest for many rows at once. It needs one scale for
 * each output; layers with more are written as `storePacked` writes them, and `reason` says why. Conv
 * needs ranges of activations to be computed in integers (`storeConvolutions`), and is written so without.
 * The model is edited in memory; it comes to opset 13.
 * @param ranges of activations, by value name
 * @returns each layer, in file order
 * @throws {ResectError} exit 5 for ops without an equal in the opset; 2 for codes with offsets
 */
export async function storeIntegers(
  model: Model,
  choose: ChooseCodes,
  ranges?: ActivationRanges,
): Promise<StoredCodes[]> {
  if (!ranges) return replaceLayers(model, choose, integerWriter);
  const order = nameLayers(model);
  const asked = new Map<string, CodedLayer | undefined>();
  const ask: ChooseCodes = async (layer) => {
    const coded = await choose(layer);
    asked.set(layer.name, coded);
    return coded;
  };
  const convolutions = await storeConvolutions(model, ask, ranges);
  for (const name of convolutions.keys()) asked.delete(name);
  const rest = await replaceLayers(model, ({ name }) => asked.get(name), integerWriter);
  const reports = new Map(rest.map((report) => [report.name, report]));
  for (const [name, report] of convolutions) reports.set(name, report);
  const first = order.flatMap((name) => reports.get(name) ?? []);
  return [...new Set([...first, ...reports.values()])];
}

function integerWriter(workspace: Workspace): WriteLayer {
  const store = new PackedStore(workspace);
  const writeFloats = floatWriter(workspace, store);
  const roundInput = inputRounder(workspace);
  return async (layer, ternary) => {
    refuseOffsets(layer, ternary);
    const reason =
      productProblem(layer) ??
      (ternary.codes.groups > 1 ? 'an output has more than one scale' : undefined);
    if (!reason) return writeIntegers(workspace, layer, ternary, { store, roundInput });
    const { replaced, report } = await writeFloats(layer, ternary);
    return { replaced, report: { ...report, reason } };
  };
}

/** An activation in 8 bits. */
interface RoundedInput {
  /** Codes, scale and zero point, as DynamicQuantizeLinear puts them out. */
  outputs: string[];
  /** Empty where an earlier layer rounded it. */
  nodes: NodeProto[];
}

/** Rounds activations, each once, in front of the first layer that reads it. */
function inputRounder(workspace: Workspace): (activation: string) => RoundedInput {
  const known = new Map<string, string[]>();
  return (activation) => {
    const before = known.get(activation);
    if (before) return { outputs: before, nodes: [] };
    const outputs = ['codes', 'scale', 'zero_point'].map((part) =>
      workspace.names.fresh(`${activation}_${part}`),
    );
    known.set(activation, outputs);
    return { outputs, nodes: [makeNode('DynamicQuantizeLinear', [activation], outputs)] };
  };
}

async function writeIntegers(
  workspace: Workspace,
  layer: WeightLayer,
  coded: CodedLayer,
  { store, roundInput }: { store: PackedStore; roundInput: (name: string) => RoundedInput },
): Promise<WrittenLayer> {
  const { node } = layer;
  const { codes, bias } = coded;
  const { vector, rest, absorbed, output } = await gatherAddition(workspace, layer, bias);
  const { nodes: unpacking, values, bytes } = store.integers(layer, coded);
  const factors = foldFactor(codes.scales, productFactor(layer));
  const scales = workspace.storeFloats(`${output}_scales`, factors, [factors.length]);
  const rounded = roundInput(node.input[0]);
  const [activation, scale, zeroPoint] = rounded.outputs;

  const addends = [...(vector ? [storeBias(workspace, layer, vector)] : [])];
  const nodes = [...unpacking, ...rounded.nodes];
  if (rest) {
    const added = scaledRest(workspace, rest);
    nodes.push(...added.nodes);
    addends.push(added.value);
  }
  const fresh = (part: string) => workspace.names.fresh(`${output}_${part}`);
  const [integers, floats, factor] = [fresh('integers'), fresh('floats'), fresh('factor')];
  let sum = addends.length > 0 ? fresh('product') : output;
  const product = makeNode('MatMulInteger', [activation, values.weight, zeroPoint], integers);
  nodes.push(
    { ...product, name: node.name || product.name },
    makeNode('Cast', [integers], floats, [int('to', dtypeCode('float32'))]),
    makeNode('Mul', [scale, scales], factor),
    makeNode('Mul', [floats, factor], sum),
  );
  for (const [i, addend] of addends.entries()) {
    const next = i === addends.length - 1 ? output : fresh('sum');
    nodes.push(makeNode('Add', [sum, addend], next));
    sum = next;
  }
  return {
    replaced: [[node, nodes], ...without(absorbed)],
    report: { kernel: 'MatMulInteger', bytes, values },
  };
}
