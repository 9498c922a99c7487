import { modelError } from '../errors.js';
import type { GraphProto, ModelProto, NodeProto, TensorProto } from '../onnx/index.js';
import { subgraphs } from './nodes.js';

/** One graph body: the main graph, or the body of an If, Loop or Scan. */
export interface Scope {
  readonly graph: GraphProto;
  /** Where the body hangs: `''` for the main graph, else as `scopePath` says. */
  readonly path: string;
  readonly parent?: Scope;
  /** The control-flow node that owns this body. */
  readonly owner?: NodeProto;
  readonly values: Map<string, Value>;
}

/** A named edge of the graph: an input, an initializer, or what a node puts out. */
export interface Value {
  readonly name: string;
  readonly scope: Scope;
  readonly producer?: NodeProto;
  readonly initializer?: TensorProto;
  readonly isInput: boolean;
  readonly isOutput: boolean;
  /** Every read, at this depth or in a body further down, in node order. */
  readonly consumers: Use[];
}

export interface Use {
  readonly node: NodeProto;
  readonly scope: Scope;
  /** Position among the node's inputs. */
  readonly index: number;
}

/**
 * A navigable view of a model's main graph and of every body below it. It holds references into
 * the model, no copies: an edit of a node's attributes is an edit of the model. After adding or
 * removing nodes, build a new view.
 */
export class Graph {
  readonly model: ModelProto;
  readonly root: Scope;
  /** Main graph first, bodies in the order of their owners. */
  readonly scopes: Scope[] = [];

  /** @throws {ResectError} exit 5 when the graph is missing or a node reads what nothing defines. */
  constructor(model: ModelProto) {
    if (!model.graph) throw modelError('The model has no graph.');
    this.model = model;
    this.root = this.#addScope(model.graph, undefined, undefined, '');
    for (const scope of this.scopes) this.#addUses(scope);
  }

  /** The value that `name` means in `scope`: the innermost definition outwards. */
  lookup(scope: Scope, name: string): Value | undefined {
    for (let s: Scope | undefined = scope; s; s = s.parent) {
      const value = s.values.get(name);
      if (value) return value;
    }
    return undefined;
  }

  /** The value that input `index` of `node` reads; undefined for an omitted optional input. */
  input(scope: Scope, node: NodeProto, index: number): Value | undefined {
    const name = node.input[index];
    return name ? this.lookup(scope, name) : undefined;
  }

  #addScope(
    graph: GraphProto,
    parent: Scope | undefined,
    owner: NodeProto | undefined,
    path: string,
  ): Scope {
    const scope: Scope = { graph, parent, owner, path, values: new Map() };
    this.scopes.push(scope);
    const outputs = new Set(graph.output.map((o) => o.name));
    const inputs = new Set(graph.input.map((i) => i.name));
    const define = (
      name: string | undefined,
      source: { producer?: NodeProto; initializer?: TensorProto },
    ) => {
      if (!name) return;
      // Files with duplicate definitions exist; the runtime takes the first or refuses, and says so better.
      if (scope.values.get(name)?.producer ?? scope.values.get(name)?.initializer) return;
      scope.values.set(name, {
        name,
        scope,
        ...source,
        isInput: inputs.has(name),
        isOutput: outputs.has(name),
        consumers: [],
      });
    };
    for (const name of inputs) define(name ?? undefined, {});
    for (const tensor of graph.initializer)
      define(tensor.name ?? undefined, { initializer: tensor });
    for (const sparse of graph.sparseInitializer ?? [])
      define(sparse.values?.name ?? undefined, {});
    for (const node of graph.node) {
      for (const name of node.output) define(name, { producer: node });
    }
    for (const node of graph.node) {
      for (const { name, graph: body } of subgraphs(node)) {
        this.#addScope(body, scope, node, scopePath(path, node, name));
      }
    }
    return scope;
  }

  #addUses(scope: Scope): void {
    for (const node of scope.graph.node) {
      for (const [index, name] of node.input.entries()) {
        if (!name) continue;
        const value = this.lookup(scope, name);
        if (!value) {
          throw modelError(
            `A node reads the value "${name}", which nothing in the model defines.`,
            {
              where: `node ${node.name || node.opType}`,
              hint: 'Export the model again, or check it with onnx.checker.',
            },
          );
        }
        value.consumers.push({ node, scope, index });
      }
    }
  }
}

/** The path of a body: its owner's path, the owner's first output (names may repeat), the attribute. */
export const scopePath = (parent: string, owner: NodeProto, attribute: string): string =>
  `${parent ? `${parent}/` : ''}${owner.output[0] ?? owner.name}.${attribute}`;
