import { float, int, ints } from '../../graph/build.js';
import { attribute, floatAttribute, intAttribute } from '../../graph/nodes.js';
import type { AttributeProto, ModelProto } from '../../onnx/index.js';
import { activations } from './activations.js';
import { attentions } from './attention.js';
import { norms } from './norms.js';
import { importedOpset } from './opset.js';
import { type Expansion, type RewriteRule, rewriteNodes } from './rewrite.js';
import { rotaryEmbeddings } from './rotary.js';

/**
 * The model with fused ops of ONNX Runtime (com.microsoft), and standard ops that are functions of
 * others, replaced by primitive ones of the default domain. Other ops of other domains stay: only one
 * in the way of a gradient is an error, which the gradient engine reports.
 * (https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md)
 * @param model of opset 17 or newer, float32 or float64
 * @throws {ResectError} exit 5 for forms that have no plain equal, with the reason
 */
export const expandFused = (model: ModelProto): ModelProto =>
  rewriteNodes(model, rules, importedOpset(model) ?? 17);

const rules: ReadonlyMap<string, RewriteRule> = new Map(
  Object.entries({
    'com.microsoft.FusedConv': fusedConv,
    'com.microsoft.FusedGemm': fusedGemm,
    'com.microsoft.FusedMatMul': fusedMatMul,
    ...activations,
    ...norms,
    ...attentions,
    ...rotaryEmbeddings,
  }),
);

const text = (x: Expansion, name: string): string =>
  Buffer.from(attribute(x.node, name)?.s ?? new Uint8Array()).toString();

const without = (x: Expansion, prefix: string): AttributeProto[] =>
  x.node.attribute.filter((a) => !a.name?.startsWith(prefix));

/** Conv (+ z), then an activation. */
function fusedConv(x: Expansion): void {
  const [input, weight, bias, z] = [x.input(0), x.input(1), x.input(2), x.input(3)];
  const params = attribute(x.node, 'activation_params')?.floats ?? [];
  const conv = x.add(
    'Conv',
    bias ? [input, weight, bias] : [input, weight],
    without(x, 'activation'),
  );
  const sum = z ? x.add('Add', [conv, z]) : conv;
  const op = text(x, 'activation');
  if (op === 'Clip') {
    const [min = -Infinity, max = Infinity] = params;
    x.add('Clip', [sum, x.float(min, sum), x.float(max, sum)], [], x.output());
    return;
  }
  const [alpha, beta] = params;
  activate(x, op, sum, [
    ...(alpha === undefined ? [] : [float('alpha', alpha)]),
    ...(beta === undefined ? [] : [float('beta', beta)]),
  ]);
}

/** Gemm, then an activation whose own attributes carry the prefix `activation_`. */
function fusedGemm(x: Expansion): void {
  const gemm = x.add('Gemm', x.node.input.filter(Boolean), without(x, 'activation'));
  const prefix = 'activation_';
  const own = x.node.attribute.flatMap((a) =>
    a.name?.startsWith(prefix) ? [{ ...a, name: a.name.slice(prefix.length) }] : [],
  );
  activate(x, text(x, 'activation'), gemm, own);
}

/** Activations that fuse, and the attributes that they take. */
const fusable: Record<string, string[]> = {
  Relu: [],
  Tanh: [],
  Sigmoid: [],
  Softplus: [],
  Softsign: [],
  LeakyRelu: ['alpha'],
  Elu: ['alpha'],
  HardSigmoid: ['alpha', 'beta'],
  Selu: ['alpha', 'gamma'],
};

function activate(x: Expansion, op: string, v: string, attributes: AttributeProto[]): void {
  if (!op) {
    x.add('Identity', [v], [], x.output());
    return;
  }
  const taken = Object.hasOwn(fusable, op) ? fusable[op] : undefined;
  if (!taken) x.refuse(`its activation is ${op}`, 'Export the model without graph optimisation.');
  x.add(
    op,
    [v],
    attributes.filter((a) => taken.includes(a.name ?? '')),
    x.output(),
  );
}

/** alpha · A B, either with axes exchanged. */
function fusedMatMul(x: Expansion): void {
  const alpha = floatAttribute(x.node, 'alpha', 1);
  const operands = (['A', 'B'] as const).map((side, i) => {
    const turned = intAttribute(x.node, `trans${side}`, 0) !== 0;
    const batch = intAttribute(x.node, `transBatch${side}`, 0) !== 0;
    return turned || batch ? transposed(x, x.input(i), turned, batch) : x.input(i);
  });
  if (alpha === 1) {
    x.add('MatMul', operands, [], x.output());
    return;
  }
  const product = x.add('MatMul', operands);
  x.add('Mul', [product, x.float(alpha, operands[0])], [], x.output());
}

/**
 * @param turned exchanges the last two axes
 * @param batch moves the first axis behind the batch axes, as transBatchA and transBatchB ask for
 */
function transposed(x: Expansion, v: string, turned: boolean, batch: boolean): string {
  const rank = x.rank(v);
  if (rank === undefined) {
    if (!batch) return matricesTransposed(x, v);
    x.refuse('the rank of an operand is not known', 'Run ONNX shape inference on the model first.');
  }
  // A vector has nothing to exchange.
  if (rank < 2) return v;
  const axes = Array.from({ length: rank }, (_, i) => i);
  const perm = batch ? [...axes.slice(1, -1), 0, rank - 1] : axes;
  if (turned) perm.push(...perm.splice(-2).reverse());
  return x.add('Transpose', [v], [ints('perm', perm)]);
}

/** The last two axes exchanged, whatever the rank: as a stack of matrices. */
function matricesTransposed(x: Expansion, v: string): string {
  const concat = (...parts: string[]) => x.add('Concat', parts, [int('axis', 0)]);
  const batch = x.add('Shape', [v], [int('end', -2)]);
  const [rows, columns] = [x.length(v, -2), x.length(v, -1)];
  const stack = x.add('Reshape', [v, concat(x.int64([-1]), rows, columns)]);
  const turned = x.add('Transpose', [stack], [ints('perm', [0, 2, 1])]);
  return x.add('Reshape', [turned, concat(batch, columns, rows)]);
}
