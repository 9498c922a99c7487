import { modelError, type ResectError } from '../../../errors.js';
import { opName } from '../../../graph/nodes.js';
import { tensorInfo } from '../../../onnx/index.js';
import type { LabelledModel } from '../models.js';
import type { ConstantPair } from './match.js';
import { kindOf } from './values.js';

/** Layers that end in as many values as there are classes. */
const heads = new Set(['Gemm', 'MatMul', 'Conv', 'Add', 'com.microsoft.FusedGemm']);

/**
 * The refusal of two tensors of different type or shape.
 * @param constants of the whole match, in the order in which they are read
 */
export function shapeError(
  [one, two]: readonly [LabelledModel, LabelledModel],
  pair: ConstantPair,
  constants: readonly ConstantPair[],
): ResectError {
  const { first, other, step } = pair;
  const isLast = constants
    .slice(constants.indexOf(pair))
    .every((later) => later.step === step || later.first.tensor.dims.length < 2);
  const isHead = isLast && step !== undefined && isOtherWidth(opName(step.node), pair);
  return modelError(
    isHead
      ? 'The models have heads of different width: they do not score the same classes.'
      : 'The models do not have the same shapes.',
    {
      where: `tensor ${first.name}${step ? `, node ${step.node.name || step.node.output[0]}` : ''}`,
      expected: `${kindOf(first)} as in ${one.label}`,
      got: `${kindOf(other)} as "${other.name}" in ${two.label}`,
      hint: isHead
        ? `Merge models of the same list of classes, or leave the heads as they are in the first model with --exclude "${first.name}".`
        : 'Merge models of one architecture and one precision.',
    },
  );
}

/** Whether a layer's tensors differ in the number of what it puts out, and in nothing else. */
function isOtherWidth(op: string, { first, other }: ConstantPair): boolean {
  const [a, b] = [first, other].map(({ tensor }) => tensorInfo(tensor));
  if (!heads.has(op) || a.dtype !== b.dtype || a.shape.length !== b.shape.length) return false;
  const axes = a.shape.flatMap((dim, axis) => (dim === b.shape[axis] ? [] : [axis]));
  return axes.length === 1 && (op !== 'Conv' || axes[0] === 0);
}
