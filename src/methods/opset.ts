import { importedOpset, upgradeOpset } from '../autodiff/normalize/opset.js';
import { type Expansion, type RewriteRule, rewriteNodes } from '../autodiff/normalize/rewrite.js';
import { modelError } from '../errors.js';
import { int, string } from '../graph/build.js';
import { inlineFunctions } from '../graph/functions.js';
import { attribute, intsAttribute, opName, stringAttribute } from '../graph/nodes.js';
import type { Model, NodeProto } from '../onnx/index.js';

/** The IR versions that these opsets came with. */
const irVersions = { 13: 7, 21: 10 } as const;

/**
 * Brings the model to an opset of the default domain that has DequantizeLinear per axis (13) or int4
 * (21), in place. A newer one stays. Local functions are inlined.
 * @throws {ResectError} exit 5 below opset 7, and for what has no equal in the newer one
 */
export function requireOpset(model: Model, opset: keyof typeof irVersions): void {
  const { proto } = model;
  Object.assign(proto, inlineFunctions(proto));
  if ((importedOpset(proto) ?? opset) < 13) Object.assign(proto, upgradeOpset(proto));
  const version = importedOpset(proto) ?? opset;
  if (version < opset) {
    const plain = upgradeOpset(proto);
    const from = Math.max(version, 17);
    const rules = new Map<string, RewriteRule>();
    for (const { ops, until, rule } of changes)
      if (from < until) for (const op of ops) rules.set(op, rule);
    Object.assign(proto, rewriteNodes(plain, rules, opset));
    const others = proto.opsetImport.filter(({ domain }) => domain && domain !== 'ai.onnx');
    proto.opsetImport = [{ domain: '', version: opset }, ...others];
  }
  proto.irVersion = Math.max(Number(proto.irVersion ?? 0), irVersions[opset]);
}

/** Changes of the standard from opset 18 to 21 that a model of opset 17 must follow. */
const changes: { ops: string[]; until: number; rule: RewriteRule }[] = [
  {
    ops: 'L1 L2 LogSum LogSumExp Max Mean Min Prod SumSquare'.split(' ').map((r) => `Reduce${r}`),
    until: 18,
    rule: reduce,
  },
  { ops: ['Split'], until: 18, rule: split },
  { ops: ['GridSample'], until: 20, rule: gridSample },
  { ops: ['DFT'], until: 20, rule: refuse },
  { ops: ['GroupNormalization'], until: 21, rule: refuse },
];

const replace = (x: Expansion, change: Partial<NodeProto>): void => {
  x.nodes.push({ ...x.node, ...change });
};

/** The axes were an attribute. */
function reduce(x: Expansion): void {
  const axes = intsAttribute(x.node, 'axes');
  if (!axes) return;
  const rest = x.node.attribute.filter(({ name }) => name !== 'axes');
  replace(x, { input: [x.input(0), x.int64(axes)], attribute: rest });
}

/** Without sizes, the number of outputs said into how many parts. */
function split(x: Expansion): void {
  if (x.input(1) || attribute(x.node, 'num_outputs')) return;
  replace(x, { attribute: [...x.node.attribute, int('num_outputs', x.node.output.length)] });
}

function gridSample(x: Expansion): void {
  const mode = stringAttribute(x.node, 'mode', 'bilinear');
  const renamed = new Map([
    ['bilinear', 'linear'],
    ['bicubic', 'cubic'],
  ]).get(mode);
  if (!renamed) return;
  const rest = x.node.attribute.filter(({ name }) => name !== 'mode');
  replace(x, { attribute: [...rest, string('mode', renamed)] });
}

function refuse(x: Expansion): never {
  throw modelError('The model cannot be brought to opset 21, the first with int4 tensors.', {
    where: `node ${x.node.name || x.node.output[0]} (${opName(x.node)})`,
    hint: 'Export the model again with opset 21 or newer, or keep to 5 bits and more.',
  });
}
