import { importedOpset } from '../../../autodiff/normalize/opset.js';
import { inFile, modelError, type ResectError } from '../../../errors.js';
import { inlineFunctions } from '../../../graph/functions.js';
import { isStandard } from '../../../graph/nodes.js';
import { type DType, type NodeProto, type TensorProto, tensorInfo } from '../../../onnx/index.js';
import type { LabelledModel } from '../models.js';
import { type ConstantPair, type Match, matchStructures, portDetail, type Side } from './match.js';
import { differingMetadata } from './metadata.js';
import { refuseQuantized, refuseUnmergeable } from './refuse.js';
import { shapeError } from './shape-error.js';
import { type StoredConstant, type Structure, structureOf } from './structure.js';
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
  const sides = await sidesOf(models);
  const [first, ...others] = sides;
  const partners: Map<StoredConstant, TensorProto>[] = [];
  for (const [i, other] of others.entries()) {
    const match = matchStructures(first, other);
    await checkConstants([models[0], models[i + 1]], match, selects);
    if (match.output && match.constants.every(sameKind))
      throw modelError(
        'The models do not have the same outputs.',
        portDetail(first, other, 'output', match.output.first, match.output.other),
      );
    partners.push(new Map(match.constants.map((pair) => [pair.first, pair.other.tensor])));
  }
  const reads = readsOf(first.structure);
  const tensors = first.structure.constants.flatMap((constant) => {
    const { name, tensor } = constant;
    const read = reads.get(constant);
    const found = partners.flatMap((of) => of.get(constant) ?? []);
    if (!read || found.length < others.length || !isMergeable(constant, selects)) return [];
    const { dtype, shape } = tensorInfo(tensor);
    return [{ name, tensors: [tensor, ...found], dtype, shape, ...read }];
  });
  return { tensors, notes: differingMetadata(models) };
}

/** @throws {ResectError} exit 5 for what cannot be merged, naming the model */
export async function sidesOf(models: readonly LabelledModel[]): Promise<Side[]> {
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
  return sides;
}

const mergeable = new Set<DType>(['float32', 'float64', 'float16', 'bfloat16']);

const mergeableType = ({ tensor }: StoredConstant): boolean =>
  mergeable.has(tensorInfo(tensor).dtype);

export const isMergeable = (
  constant: StoredConstant,
  selects: (name: string) => boolean,
): boolean => !constant.fixed && mergeableType(constant) && selects(constant.name);

const sameKind = ({ first, other }: ConstantPair): boolean => kindOf(first) === kindOf(other);

/** Who reads each constant first, and what it is to whoever reads it. */
function readsOf({
  steps,
}: Structure): Map<StoredConstant, Pick<PairedTensor, 'node' | 'input' | 'role'>> {
  const reads: ReturnType<typeof readsOf> = new Map();
  for (const { node, operands } of steps) {
    const isNorm = isStandard(node) && node.opType === 'BatchNormalization';
    for (const [input, operand] of operands.entries()) {
      if (operand.kind !== 'constant') continue;
      const role = isNorm && input === 3 ? 'mean' : isNorm && input === 4 ? 'variance' : 'weight';
      const read = reads.get(operand.constant) ?? { node, input, role };
      // A variance that has the values of a scale, and is stored as one with it, must stay positive.
      reads.set(operand.constant, role === 'variance' ? { ...read, role } : read);
    }
  }
  return reads;
}

/** Refuses constants that cannot be merged and are not the same, and sharing that is not alike. */
async function checkConstants(
  models: Models,
  { constants }: Match,
  selects: (name: string) => boolean,
): Promise<void> {
  const partners = new Set<StoredConstant>();
  const back = new Set<StoredConstant>();
  for (const pair of constants) {
    const { first, other, step } = pair;
    // What is not merged may be of another shape.
    if (mergeableType(first) && !selects(first.name)) continue;
    if (!sameKind(pair)) throw shapeError(models, pair, constants);
    const isMerged = step && isMergeable(first, selects);
    if (!(isMerged && !other.fixed) && !(await sameValues(models, [first, other])))
      throw valueError(models, pair);
    if (!isMerged) continue;
    // Each pair comes once: whoever has a partner already gets a second one.
    if (partners.has(first) || back.has(other)) throw sharingError(models, pair);
    partners.add(first);
    back.add(other);
  }
}

type Models = readonly [LabelledModel, LabelledModel];

const placeOf = ({ first: { name }, step }: ConstantPair): string =>
  `tensor ${name}${step ? `, node ${step.node.name || step.node.output[0]}` : ''}`;

const sharingError = ([one, two]: Models, pair: ConstantPair): ResectError =>
  modelError('The models do not share a tensor alike.', {
    where: placeOf(pair),
    expected: `the same places to read "${pair.first.name}" of ${one.label} and "${pair.other.name}" of ${two.label}`,
    got: 'places that one tensor serves in one model, and several in the other',
    hint: 'Export both models in the same way.',
  });

function valueError([one, two]: Models, pair: ConstantPair): ResectError {
  const { first, other } = pair;
  const isWeight = mergeableType(first);
  const place = first.fixed ?? other.fixed ?? 'that the model puts out as it is';
  return modelError(
    isWeight
      ? `A weight ${place} differs between the models, and cannot be merged.`
      : 'A constant that cannot be merged differs between the models.',
    {
      where: placeOf(pair),
      expected: `the values in ${one.label}`,
      got: `others in "${other.name}" of ${two.label}`,
      hint: isWeight
        ? 'Leave it out with --exclude, or export the models with their weights as initializers.'
        : 'Merge models of one architecture, exported with the same shapes.',
    },
  );
}
