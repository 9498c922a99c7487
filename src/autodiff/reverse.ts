import { type ErrorDetail, ExitCode, ResectError } from '../errors.js';
import { opName } from '../graph/nodes.js';
import { dependencies } from '../graph/topology.js';
import type { NodeProto } from '../onnx/index.js';
import { derivedPerSample, perSampleGradient } from './per-sample.js';
import { Refusal } from './refusal.js';
import type { Rule } from './rule.js';
import { rules } from './rules/index.js';
import type { Tape } from './tape.js';

/** Some wanted gradients cannot be computed: an op on the way has no rule. */
export class NoGradientError extends ResectError {
  /** The op, with its domain where that is not the standard one. */
  readonly op: string;
  readonly node: string;
  /** Parameters whose gradient would pass the op, and those that can be had without it. */
  readonly unreachable: string[];
  readonly reachable: string[];
  readonly #blocked: Blocked;
  readonly #path: readonly string[];

  /** @param path the ops from the first of `unreachable` to what blocks it */
  constructor(
    blocked: Blocked,
    path: readonly string[],
    unreachable: string[],
    reachable: string[],
  ) {
    const steps = [`"${unreachable[0]}"`, ...path];
    const shown = steps.length > 8 ? [...steps.slice(0, 4), '...', ...steps.slice(-3)] : steps;
    const detail: ErrorDetail = {
      where: `node ${nodeName(blocked.node)}`,
      got: `${blocked.reason}; on the way to "${unreachable[0]}": ${shown.join(' <- ')}`,
      hint: reachable.length
        ? `${reachable.length} of ${reachable.length + unreachable.length} parameters can be had without it: leave out the others with --exclude, such as ${unreachable.slice(0, 3).join(', ')}.`
        : 'No parameter can be had without it.',
    };
    super('A gradient cannot be computed.', ExitCode.unsupportedModel, detail);
    this.name = 'NoGradientError';
    this.op = opName(blocked.node);
    this.node = nodeName(blocked.node);
    this.unreachable = unreachable;
    this.reachable = reachable;
    this.#blocked = blocked;
    this.#path = path;
  }

  /**
   * The same error with values under the names that a user knows them by. Of several values with one
   * name, one that is unreachable makes it unreachable.
   */
  renamed(names: ReadonlyMap<string, string>): NoGradientError {
    const known = (values: string[]) => [...new Set(values.map((v) => names.get(v) ?? v))];
    const unreachable = known(this.unreachable);
    const reachable = known(this.reachable).filter((name) => !unreachable.includes(name));
    return new NoGradientError(this.#blocked, this.#path, unreachable, reachable);
  }
}

interface Blocked {
  node: NodeProto;
  reason: string;
}

const nodeName = (node: NodeProto): string => node.name || node.output[0] || opName(node);

/** What is known of a value's gradient during the reverse pass. */
interface Incoming {
  partials: string[];
  /** The node next to it on a way to the loss, to tell of the path. */
  via?: NodeProto;
  /** Set when a part of the gradient is missing. */
  blocked?: Blocked;
}

/**
 * Emits the gradients of a loss.
 * @param order the forward nodes, in an order in which they may run
 * @param seeds names of dL/dv for the values v that the loss was computed from
 * @param wrt values to differentiate by; floating point
 * @returns names of the gradients; none for a value that the loss does not depend on
 * @param batch the number of samples, for the gradients of each sample apart: [batch, ...dims]
 * @throws {NoGradientError} where an op without a rule is in the way of a wanted gradient
 * @throws {Refusal} where the gradients of samples cannot be told apart
 */
export function reverse(
  t: Tape,
  order: readonly NodeProto[],
  seeds: ReadonlyMap<string, string>,
  wrt: readonly string[],
  batch?: number,
): Map<string, string> {
  const active = activeValues(t, order, wrt);
  const wanted = new Set(wrt);
  const derived = derivedNodes(t, order, active, wanted);
  // Whose gradients are kept apart by sample.
  const apart = new Set(wrt);
  for (const node of derived) for (const name of node.output) apart.add(name);
  const incoming = new Map<string, Incoming>();
  for (const [value, seed] of seeds)
    if (active.has(value)) incoming.set(value, { partials: [seed] });

  const into = (value: string): Incoming => {
    const known = incoming.get(value) ?? { partials: [] };
    incoming.set(value, known);
    return known;
  };
  const blockInputs = (node: NodeProto, blocked: Blocked) => {
    for (const name of dependencies(node)) {
      if (!active.has(name)) continue;
      const to = into(name);
      to.blocked ??= blocked;
      to.via ??= node;
    }
  };
  for (let i = order.length - 1; i >= 0; i--) {
    const node = order[i];
    const states = node.output.map((name) => (name ? incoming.get(name) : undefined));
    if (!states.some(Boolean)) continue;
    const upstream = states.find((s) => s?.blocked)?.blocked;
    const rule = rules.get(opName(node));
    if (upstream || !rule) {
      blockInputs(node, upstream ?? { node, reason: whyNot(node) });
      continue;
    }
    const dy = states.map((state) => state && total(t, state));
    const need = node.input.map((name) => active.has(name));
    const receive = (name: string, gradient: string) => {
      const to = into(name);
      to.partials.push(gradient);
      to.via ??= node;
    };
    for (const [index, name] of node.input.entries()) {
      if (batch === undefined || !need[index] || !apart.has(name)) continue;
      const use = { node, dy, index, batch };
      const each = derived.has(node) ? derivedPerSample(t, use) : perSampleGradient(t, use);
      if (each === undefined) throw new Refusal(`${opName(node)} does not tell samples apart`);
      receive(name, each);
      need[index] = false;
    }
    if (!need.some(Boolean)) continue;
    let dx: ReturnType<Rule>;
    try {
      dx = rule(t, { node, dy, need });
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      blockInputs(node, { node, reason: error.message });
      continue;
    }
    for (const [k, name] of node.input.entries()) {
      const gradient = dx[k];
      if (need[k] && gradient !== undefined) receive(name, gradient);
    }
  }
  const unreachable = wrt.filter((name) => incoming.get(name)?.blocked);
  if (unreachable.length > 0) {
    const { blocked } = incoming.get(unreachable[0]) as { blocked: Blocked };
    throw new NoGradientError(
      blocked,
      pathTo(blocked.node, unreachable[0], incoming),
      unreachable,
      wrt.filter((name) => !unreachable.includes(name)),
    );
  }
  const gradients = new Map<string, string>();
  for (const name of wrt) {
    const state = incoming.get(name);
    if (state?.partials.length) gradients.set(name, total(t, state));
  }
  return gradients;
}

/** Values that depend on one of `wrt` by floating-point paths: through a shape or a comparison no gradient flows. */
function activeValues(
  t: Tape,
  order: readonly NodeProto[],
  wrt: readonly string[],
): ReadonlySet<string> {
  const active = new Set(wrt);
  for (const node of order) {
    if (!dependencies(node).some((name) => active.has(name))) continue;
    for (const name of node.output) if (name && t.carriesGradient(name)) active.add(name);
  }
  return active;
}

/**
 * Nodes that compute something of parameters alone, such as the positions of a text out of a table of
 * embeddings: what they put out is the same for all samples, as a parameter is.
 */
function derivedNodes(
  t: Tape,
  order: readonly NodeProto[],
  active: ReadonlySet<string>,
  wanted: ReadonlySet<string>,
): ReadonlySet<NodeProto> {
  const produced = new Set(order.flatMap((node) => node.output));
  const fed = new Set<string>();
  const derived = new Set<NodeProto>();
  for (const node of order) {
    const ofData = dependencies(node).some(
      (name) => fed.has(name) || !(produced.has(name) || wanted.has(name) || t.isStored(name)),
    );
    if (ofData) for (const name of node.output) fed.add(name);
    else if (node.output.some((name) => active.has(name))) derived.add(node);
  }
  return derived;
}

/** One name for the sum of all partial gradients, which later readers share. */
function total(t: Tape, state: Incoming): string {
  if (state.partials.length > 1) {
    const op = state.partials.length === 2 ? 'Add' : 'Sum';
    state.partials = [t.emit(op, state.partials)];
  }
  return state.partials[0];
}

function whyNot(node: NodeProto): string {
  const op = opName(node);
  if (op === 'If')
    return 'If, whose branch is chosen while the model runs, has no gradient here; one whose condition is constant would have';
  if (op === 'Loop' || op === 'Scan')
    return `${op}, whose body is repeated while the model runs, has no gradient here`;
  return `${op} has no gradient here`;
}

/** The ops from a value towards the loss, up to `node`. */
function pathTo(node: NodeProto, value: string, incoming: ReadonlyMap<string, Incoming>): string[] {
  const path: string[] = [];
  const seen = new Set<string>();
  for (let name: string | undefined = value; name !== undefined && !seen.has(name); ) {
    seen.add(name);
    const via: NodeProto | undefined = incoming.get(name)?.via;
    if (!via) break;
    path.push(opName(via));
    if (via === node) break;
    name = via.output.find((output) => incoming.has(output));
  }
  return path;
}
