import { modelError, usageError } from '../../../errors.js';
import { Graph, type Value } from '../../../graph/graph.js';
import { modelOutputs } from '../../../graph/interface.js';
import { intAttribute, isStandard } from '../../../graph/nodes.js';
import { DTYPES, type DType, isFloat, type ModelProto } from '../../../onnx/index.js';

/** How the scores of classes come out of a model. */
export interface Scores {
  /** Name of the output. */
  name: string;
  dtype: DType;
  /** 2 [N, C], 3 [N, T, C] or 4 [N, C, H, W]. */
  rank: number;
  /** The axis that classes run along. */
  axis: number;
  /** What makes probabilities of them: a Sigmoid where the labels do not exclude each other. */
  link: 'softmax' | 'sigmoid';
  /** Whether the graph has done that already. */
  linked: boolean;
}

export interface ScoresWish {
  /** Name of the output; by default the first with floats. */
  output?: string;
  /** The labels do not exclude each other; seen on its own where the graph ends with a Sigmoid. */
  multiLabel?: boolean;
}

/**
 * Finds the output whose distributions are compared.
 * @throws {ResectError} exit 2 when there is no output of the name, exit 5 when its shape is not one
 *   of scores of two classes or more
 */
export function findScores(model: ModelProto, { output, multiLabel }: ScoresWish): Scores {
  const outputs = modelOutputs(model);
  const port = outputs.find(({ name, dtype }) =>
    output === undefined ? /^b?float/.test(dtype) : name === output,
  );
  if (!port)
    throw output === undefined
      ? modelError('The model has no floating-point output, so no scores to compare.')
      : usageError('--scores names no output of the model.', {
          expected: outputs.map(({ name }) => name).join(', '),
          got: output,
        });
  const { name, dims } = port;
  const where = `output ${name}`;
  const dtype = DTYPES.find((d) => d === port.dtype);
  if (!dtype || !isFloat(dtype))
    throw modelError('The scores are no floating-point numbers.', { where, got: port.dtype });
  const rank = dims.length;
  if (rank < 2 || rank > 4)
    throw modelError('The output has not the shape of scores of classes.', {
      where,
      expected: '[N, C], [N, T, C] or [N, C, H, W]',
      got: rank === 0 ? 'an unknown shape' : `[${dims.join(', ')}]`,
      hint: 'Choose another output with --scores NAME.',
    });
  const graph = new Graph(model);
  const made = producer(graph.root.values.get(name));
  const link = multiLabel || made?.opType === 'Sigmoid' ? 'sigmoid' : 'softmax';
  const axis = rank === 4 ? 1 : rank - 1;
  if (link === 'softmax' && dims[axis] === 1)
    throw modelError('The model scores one class only: there is nothing to disagree on.', {
      where,
      expected: 'two classes or more',
      got: `[${dims.join(', ')}]`,
      hint: 'If it is the score of yes or no, give --multi-label.',
    });
  if (made?.opType === 'Softmax') {
    const along = intAttribute(made, 'axis', -1);
    if ((along < 0 ? along + rank : along) !== axis)
      throw modelError('The Softmax of the scores does not run over the classes.', {
        where: `node ${made.name || name}`,
        expected: `axis ${axis}`,
        got: `axis ${along}`,
        hint: 'Choose another output with --scores NAME.',
      });
  }
  const linked = made?.opType === (link === 'softmax' ? 'Softmax' : 'Sigmoid');
  return { name, dtype, rank, axis, link, linked };
}

/** The node that makes a value, behind mere copies. */
function producer(value: Value | undefined): Value['producer'] {
  let node = value?.producer;
  while (node && isStandard(node) && ['Identity', 'Cast'].includes(node.opType ?? '')) {
    const from = value?.scope.values.get(node.input[0]);
    if (!from?.producer) return undefined;
    node = from.producer;
    value = from;
  }
  return node && isStandard(node) ? node : undefined;
}
