import { modelError } from '../../../errors.js';
import type { Scope, Value } from '../../../graph/graph.js';
import type { Port } from '../../../graph/interface.js';
import { opName } from '../../../graph/nodes.js';
import type { NodeProto } from '../../../onnx/index.js';
import { canonicalAttributes, tensorAttributes } from './attributes.js';
import type { Operand, Step, StoredConstant, Structure } from './structure.js';

/** A model to be matched, and what errors call it. */
export interface Side {
  label: string;
  opset: number;
  structure: Structure;
}

/** Tensors that two models store at the same place. */
export interface ConstantPair {
  first: StoredConstant;
  other: StoredConstant;
  /** Who reads it there first; absent when it is only put out, or is an attribute. */
  step?: Step;
}

export interface Match {
  /** Each pair once, in the order in which it is read. */
  constants: ConstantPair[];
  /** An output whose shapes differ, which weights that are left out may explain. */
  output?: { first: Port; other: Port };
}

/**
 * Compares two models step by step.
 * @throws {ResectError} exit 5 naming the first node, in the order of execution, that differs
 */
export function matchStructures(first: Side, other: Side): Match {
  return new Matcher(first, other).run();
}

class Matcher {
  readonly #first: Side;
  readonly #other: Side;
  readonly #sameInputNames: boolean;
  readonly #inputs = new Map<Value, Value>();
  readonly #inputsBack = new Map<Value, Value>();
  readonly #scopes = new Map<Scope, Scope>();
  readonly #pairs = new Map<StoredConstant, Map<StoredConstant, ConstantPair>>();
  readonly #constants: ConstantPair[] = [];

  constructor(first: Side, other: Side) {
    this.#first = first;
    this.#other = other;
    const [one, two] = [first, other].map(({ structure }) => [...structure.inputs.keys()].sort());
    this.#sameInputNames = one.join('\0') === two.join('\0');
  }

  run(): Match {
    const [a, b] = [this.#first.structure, this.#other.structure];
    const count = Math.max(a.steps.length, b.steps.length);
    for (let i = 0; i < count; i++) this.#step(a.steps[i], b.steps[i]);
    if (a.results.length !== b.results.length)
      this.#fail(undefined, undefined, [
        `${a.results.length} outputs`,
        `${b.results.length} outputs`,
      ]);
    let output: Match['output'];
    for (const [i, result] of a.results.entries()) {
      const [p, q] = [a.outputs[i], b.outputs[i]];
      if (!this.#same(result, b.results[i]))
        this.#fail(undefined, undefined, [
          `output ${p.name} from ${this.#operandText(result, a)}`,
          `output ${q.name} from ${this.#operandText(b.results[i], b)}`,
        ]);
      if (!sameType(p, q)) this.#failPorts('output', p, q);
      if (!compatible(p, q)) output ??= { first: p, other: q };
    }
    return { constants: this.#constants, ...(output && { output }) };
  }

  #step(a: Step | undefined, b: Step | undefined): void {
    if (!a || !b || opName(a.node) !== opName(b.node)) {
      const text = (step?: Step) => (step ? nodeText(step.node) : 'the end of the graph');
      this.#fail(a?.node, b?.node, [text(a), text(b)]);
    }
    const differ = (p: string, q: string) =>
      this.#fail(a.node, b.node, [
        `${nodeText(a.node)} with ${p}`,
        `${nodeText(b.node)} with ${q}`,
      ]);
    this.#attributes(a, b, differ);
    const counts = [a, b].map(({ operands }) => `${operands.length} inputs`);
    if (counts[0] !== counts[1]) differ(counts[0], counts[1]);
    const outputs = [a, b].map(({ node }) => `${node.output.findLastIndex(Boolean) + 1} outputs`);
    if (outputs[0] !== outputs[1]) differ(outputs[0], outputs[1]);
    for (const [i, operand] of a.operands.entries())
      if (!this.#same(operand, b.operands[i], a))
        differ(
          `input ${i} from ${this.#operandText(operand, this.#first.structure)}`,
          `input ${i} from ${this.#operandText(b.operands[i], this.#other.structure)}`,
        );
    this.#bodies(a, b, differ);
  }

  #attributes(a: Step, b: Step, differ: (p: string, q: string) => never): void {
    const p = canonicalAttributes(a.node, this.#first.opset);
    const q = canonicalAttributes(b.node, this.#other.opset);
    for (const name of new Set([...p.keys(), ...q.keys()]))
      if (p.get(name) !== q.get(name)) {
        const text = (value?: string) => (value ? `${name} ${value}` : `the default ${name}`);
        differ(text(p.get(name)), text(q.get(name)));
      }
    const tensors = [a, b].map(({ node }) => tensorAttributes(node));
    const names = tensors.map(
      (list) =>
        list
          .map(({ name }) => name)
          .sort()
          .join(', ') || 'no tensors',
    );
    if (names[0] !== names[1]) differ(names[0], names[1]);
    for (const { name = '', t } of tensors[0]) {
      const u = tensors[1].find((other) => other.name === name)?.t;
      const stored = (node: NodeProto, tensor: typeof t) =>
        tensor && {
          name: `${node.output[0]}.${name}`,
          tensor,
          fixed: 'in an attribute' as const,
        };
      const [first, other] = [stored(a.node, t), stored(b.node, u)];
      if (first && other) this.#constants.push({ first, other });
    }
  }

  #bodies(a: Step, b: Step, differ: (p: string, q: string) => never): void {
    const names = [a, b].map(({ bodies }) => bodies.map(({ attribute }) => attribute).join(', '));
    if (names[0] !== names[1]) differ(`bodies ${names[0]}`, `bodies ${names[1]}`);
    for (const [i, { attribute, scope, results }] of a.bodies.entries()) {
      const body = b.bodies[i];
      const counts = [scope, body.scope].map(
        ({ graph }) => `${graph.input.length} inputs and ${graph.output.length} outputs`,
      );
      if (counts[0] !== counts[1])
        differ(`${counts[0]} of ${attribute}`, `${counts[1]} of ${attribute}`);
      const known = this.#scopes.get(scope) ?? body.scope;
      const wrong = results.findIndex((result, j) => !this.#same(result, body.results[j]));
      if (known !== body.scope || wrong >= 0) {
        const at = Math.max(wrong, 0);
        differ(
          `${attribute} that puts out ${this.#operandText(results[at], this.#first.structure)}`,
          `${attribute} that puts out ${this.#operandText(body.results[at], this.#other.structure)}`,
        );
      }
    }
  }

  #same(a: Operand, b: Operand, step?: Step): boolean {
    if (a.kind === 'constant' && b.kind === 'constant') {
      this.#pair(a.constant, b.constant, step);
      return true;
    }
    if (a.kind === 'input' && b.kind === 'input') return this.#sameInput(a.value, b.value);
    if (a.kind === 'output' && b.kind === 'output') return a.step === b.step && a.index === b.index;
    return a.kind === 'omitted' && b.kind === 'omitted';
  }

  #sameInput(a: Value, b: Value): boolean {
    const [there, back] = [this.#inputs.get(a), this.#inputsBack.get(b)];
    if (there || back) return there === b && back === a;
    if (a.scope.parent && b.scope.parent) {
      // Inputs of bodies have their meaning by position.
      const place = ({ scope, name }: Value) => scope.graph.input.findIndex((v) => v.name === name);
      const body = this.#scopes.get(a.scope) ?? b.scope;
      if (body !== b.scope || place(a) !== place(b)) return false;
      this.#scopes.set(a.scope, b.scope);
    } else if (a.scope.parent || b.scope.parent) return false;
    else {
      // Where both have the same names, these say what is to be fed.
      if (this.#sameInputNames && a.name !== b.name) return false;
      const p = this.#first.structure.inputs.get(a.name);
      const q = this.#other.structure.inputs.get(b.name);
      if (p && q && !(sameType(p, q) && compatible(p, q))) this.#failPorts('input', p, q);
    }
    this.#inputs.set(a, b);
    this.#inputsBack.set(b, a);
    return true;
  }

  #pair(first: StoredConstant, other: StoredConstant, step?: Step): void {
    const partners = this.#pairs.get(first) ?? new Map<StoredConstant, ConstantPair>();
    const known = partners.get(other);
    const pair = known ?? { first, other };
    if (step) pair.step ??= step;
    if (known) return;
    this.#pairs.set(first, partners.set(other, pair));
    this.#constants.push(pair);
  }

  #operandText(operand: Operand, { steps }: Structure): string {
    if (operand.kind === 'omitted') return 'nothing';
    if (operand.kind === 'input') return `the input "${operand.value.name}"`;
    if (operand.kind === 'constant') return `the constant "${operand.constant.name}"`;
    const text = nodeText(steps[operand.step].node);
    return operand.index > 0 ? `output ${operand.index} of ${text}` : text;
  }

  #fail(a: NodeProto | undefined, b: NodeProto | undefined, [p, q]: [string, string]): never {
    const names = new Set([a, b].flatMap((node) => (node ? [nameOf(node)] : [])));
    throw modelError('The models do not have the same graph.', {
      ...(names.size > 0 && {
        where: `${names.size > 1 ? 'nodes' : 'node'} ${[...names].join(' and ')}`,
      }),
      expected: `${p} in ${this.#first.label}`,
      got: `${q} in ${this.#other.label}`,
      hint: this.#hint(a, b),
    });
  }

  #failPorts(kind: 'input' | 'output', p: Port, q: Port): never {
    throw modelError(
      `The models do not have the same ${kind}s.`,
      portDetail(this.#first, this.#other, kind, p, q),
    );
  }

  #hint(a: NodeProto | undefined, b: NodeProto | undefined): string {
    const [one, two] = [this.#first, this.#other].map(({ structure: { steps } }) => {
      const ops = steps.map(({ node }) => opName(node));
      const rest = ops.filter((op) => op !== 'BatchNormalization');
      return { norms: ops.length - rest.length, rest: rest.join() };
    });
    if (one.norms !== two.norms && one.rest === two.rest)
      return 'Use --bn fold: one model has its BatchNormalization folded into the layers before it.';
    if ([a, b].some((node) => node && opName(node) === 'Cast'))
      return 'Bring the models to the same precision: one casts where the other does not.';
    return 'Merge models of one architecture, exported in the same way.';
  }
}

/** What to say of inputs or outputs that do not fit each other. */
export const portDetail = (first: Side, other: Side, kind: string, p: Port, q: Port) => ({
  where: p.name === q.name ? `${kind} ${p.name}` : `${kind}s ${p.name} and ${q.name}`,
  expected: `${portText(p)} in ${first.label}`,
  got: `${portText(q)} in ${other.label}`,
  hint: 'Merge models of one architecture, exported with the same shapes.',
});

const nameOf = (node: NodeProto): string => node.name || node.output.find(Boolean) || '';
const nodeText = (node: NodeProto): string => `${opName(node)} "${nameOf(node)}"`;
const portText = ({ dtype, dims }: Port): string => `${dtype}[${dims.join(', ')}]`;

const sameType = (p: Port, q: Port): boolean =>
  p.dtype === q.dtype || p.dtype === 'unknown' || q.dtype === 'unknown';

/** Whether shapes agree as far as they are known. */
const compatible = (p: Port, q: Port): boolean =>
  p.dims.length === 0 ||
  q.dims.length === 0 ||
  (p.dims.length === q.dims.length &&
    p.dims.every((dim, i) => {
      const other = q.dims[i];
      return typeof dim === 'string' || typeof other === 'string' || dim === other;
    }));
