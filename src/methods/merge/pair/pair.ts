import { importedOpset } from '../../../autodiff/normalize/opset.js';
import { inFile, modelError } from '../../../errors.js';
import { inlineFunctions } from '../../../graph/functions.js';
import { isStandard } from '../../../graph/nodes.js';
import { type DType, type NodeProto, type TensorProto, tensorInfo } from '../../../onnx/index.js';
import type { LabelledModel } from '../prepare.js';
import { type ConstantPair, type Match, matchStructures, portDetail, type Side } from './match.js';
import { differingMetadata } from './metadata.js';
import { refuseQuantized, refuseUnmergeable } from './refuse.js';
import { shapeError } from './shape-error.js';
import { type Step, type StoredConstant, structureOf } from './structure.js';
import { kindOf, sameValues } from './values.js';

/** A float tensor that all models store at the same place of the graph. */
export interface PairedTensor {
  /** Name in the first model: of the initializer, or of the Constant node's output. */
  name: string;
  /** One per model, in the order of the models. */
  tensors: TensorProto[];
  dtype: DType;
  shape: number[];
  /** Who reads it first in the first model. */
  node: NodeProto;
  /** The position of the input that reads it. */
  input: number;
  /** What it is; statistics are those of a BatchNormalization. A variance must stay positive. */
  role: 'weight' | 'mean' | 'variance';
}

export interface Pairing {
  /** In the first model's order: initializers, then Constant nodes. */
  tensors: PairedTensor[];
  /** What a user should know although the models fit. */
  notes: string[];
}

/**
 * Pairs the float tensors of models of one structure, whatever their names and the order of their nodes
 * and initializers: what stands in the same place of the graphs is a pair. All else that the models
 * store must be equal. Local functions are looked into; the models are not changed.
 *
 * @param models two or more; the first is the template, and their opsets are the same
 * @param selects by name in the first model: tensors that it does not select keep that model's values,
 *   and may be of another shape in the others
 * @throws {ResectError} exit 5 naming the first difference, and for what cannot be merged: quantised
 *   models, sparse constants, nodes in training mode; exit 7 when external values cannot be read
 */
export async function pairModels(
  models: readonly LabelledModel[],
  selects: (name: string) => boolean = () => true,
): Promise<Pairing> {
  const sides: Side[] = [];
  for (const { model, label } of models)
    sides.push(
      await inFile(label, async () => {
        const proto = inlineFunctions(model.proto);
        refuseQuantized(proto);
        const structure = structureOf(proto);
        refuseUnmergeable(structure);
        return { label, structure, opset: importedOpset(proto) ?? 17 };
      }),
    );
  const [first, ...others] = sides;
  const matches: Match[] = [];
  for (const [i, other] of others.entries()) {
    const match = matchStructures(first, other);
    await checkConstants([models[0], models[i + 1]], match, selects);
    if (match.output && match.constants.every((pair) => sameKind(pair)))
      throw modelError(
        'The models do not have the same outputs.',
        portDetail(first, other, 'output', match.output.first, match.output.other),
      );
    matches.push(match);
  }
  const readers = new Map(
    matches[0].constants.flatMap(({ first: { tensor }, step }) => (step ? [[tensor, step]] : [])),
  );
  const tensors = first.structure.constants.flatMap((constant) => {
    const partners = matches.map(
      ({ constants }) => constants.find((pair) => pair.first === constant)?.other.tensor,
    );
    const step = readers.get(constant.tensor);
    const known = partners.filter((tensor) => tensor !== undefined);
    if (!step || known.length < others.length || !isMergeable(constant, selects)) return [];
    return [pairedTensor(constant, known, step)];
  });
  return { tensors, notes: differingMetadata(models) };
}

const mergeable = new Set<DType>(['float32', 'float64', 'float16', 'bfloat16']);

const isMergeable = (
  { name, tensor, replaceable }: StoredConstant,
  selects: (name: string) => boolean,
): boolean => replaceable && mergeable.has(tensorInfo(tensor).dtype) && selects(name);

const sameKind = ({ first, other }: ConstantPair): boolean => kindOf(first) === kindOf(other);

/** Refuses constants that cannot be merged and are not the same, and sharing that is not alike. */
async function checkConstants(
  pair: readonly [LabelledModel, LabelledModel],
  { constants }: Match,
  selects: (name: string) => boolean,
): Promise<void> {
  const partners = new Map<StoredConstant, StoredConstant>();
  const back = new Map<StoredConstant, StoredConstant>();
  for (const each of constants) {
    const { first, other, step } = each;
    // What is not merged may be of another shape.
    if (mergeableType(first) && !selects(first.name)) continue;
    if (!sameKind(each)) throw shapeError(pair, each, constants);
    const mergeable = isMergeable(first, selects) && other.replaceable;
    const shared = partners.get(first) ?? back.get(other);
    if (mergeable && shared && (partners.get(first) !== other || back.get(other) !== first))
      throw modelError('The models do not share a tensor alike.', {
        where: `tensor ${first.name}`,
        expected: `one tensor wherever ${pair[0].label} reads "${first.name}"`,
        got: `"${other.name}" and others in ${pair[1].label}`,
        hint: 'Export both models in the same way.',
      });
    partners.set(first, other);
    back.set(other, first);
    if (mergeable || (await sameValues(pair, [first, other]))) continue;
    const inBody = mergeableType(first);
    throw modelError(
      inBody
        ? 'A weight inside a control-flow body differs, and cannot be merged.'
        : 'A constant that cannot be merged differs between the models.',
      {
        where: `tensor ${first.name}${step ? `, node ${step.node.name || step.node.output[0]}` : ''}`,
        expected: `the values in ${pair[0].label}`,
        got: `others in "${other.name}" of ${pair[1].label}`,
        hint: inBody
          ? 'Leave it out with --exclude, or export the models without control flow.'
          : 'Merge models of one architecture, exported with the same shapes.',
      },
    );
  }
}

const mergeableType = ({ tensor }: StoredConstant): boolean =>
  mergeable.has(tensorInfo(tensor).dtype);

function pairedTensor(
  { name, tensor }: StoredConstant,
  partners: TensorProto[],
  { node, operands }: Step,
): PairedTensor {
  const { dtype, shape } = tensorInfo(tensor);
  const input = operands.findIndex((o) => o.kind === 'constant' && o.constant.tensor === tensor);
  const isNorm = isStandard(node) && node.opType === 'BatchNormalization';
  const role = isNorm && input === 3 ? 'mean' : isNorm && input === 4 ? 'variance' : 'weight';
  return { name, tensors: [tensor, ...partners], dtype, shape, node, input, role };
}
