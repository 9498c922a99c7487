import { branch, emptyGraph, int, makeNode, tensorType } from '../../../graph/build.js';
import { dtypeCode } from '../../../onnx/index.js';
import type { DynamicOptions } from './batch.js';
import { type Branches, commit, emitBranches } from './branches.js';
import { Emitter } from './emitter.js';
import { copyNodes, type Pair, renaming } from './pair.js';
import type { Probed } from './sample.js';
import { streamNodes } from './scan.js';

/**
 * Turns the model into one with some merges made beforehand: each sample runs through the merge whose
 * share of the generalist is nearest to its own; three passes a sample.
 * @param shares of the generalist in the merges, rising
 * @param inputs of the model that hold the samples along their first axis
 * @param probed of every output of the model
 */
export function buildClusters(
  pair: Pair,
  shares: readonly number[],
  inputs: ReadonlySet<string>,
  probed: ReadonlyMap<string, Probed>,
  { scores, rule, outputs }: DynamicOptions,
): void {
  const branches = emitBranches(pair, scores, rule, false);
  const { emitter: e } = branches;
  const nearest = nearestShare(branches, shares);
  const results = pair.outputs;
  const rows: string[] = [];
  const parts: string[][] = results.map(() => []);
  for (const [k, share] of shares.entries()) {
    const own = e.emit('Equal', [nearest, e.int(k)]);
    const row = e.emit('Squeeze', [e.emit('NonZero', [own]), e.ints([0])]);
    rows.push(row);
    const some = e.emit('Greater', [e.emit('Size', [row]), e.int(0)]);
    const outs = results.map((name) => e.names.fresh(`${name}@${k}`));
    e.nodes.push(
      makeNode('If', [some], outs, [
        branch('then_branch', merge(pair, e, share, k, row, inputs, probed)),
        branch('else_branch', nothing(pair, branches, probed)),
      ]),
    );
    for (const [i, out] of outs.entries()) parts[i].push(out);
  }
  // Results come cluster by cluster; back to the order of the samples.
  const order = e.emit('Concat', rows, [int('axis', 0)]);
  const count = e.emit('Size', [order]);
  const positions = e.emit('Range', [e.int(0), count, e.int(1)]);
  const back = e.emit('ScatterElements', [order, order, positions], [int('axis', 0)]);
  for (const [i, name] of results.entries()) {
    const all = e.emit('Concat', parts[i], [int('axis', 0)]);
    e.emit('Gather', [all, back], [int('axis', 0)], name);
  }
  commit(pair, branches, [], { outputs });
}

/** int64 [N]: which share each sample's own is nearest to. */
function nearestShare({ emitter: e, coefficient }: Branches, shares: readonly number[]): string {
  const middles = shares.slice(1).map((share, i) => (share + shares[i]) / 2);
  if (middles.length === 0) {
    const none = e.emit('Mul', [coefficient.share, e.scalar(0)]);
    return e.cast(none, 'int64');
  }
  const column = e.emit('Reshape', [coefficient.share, e.ints([-1, 1])]);
  const above = e.cast(e.emit('Greater', [column, e.floats(middles)]), 'int64');
  return e.reduceSum(above, [1]);
}

/** A pass of the samples of one cluster through its merge. */
function merge(
  pair: Pair,
  e: Emitter,
  share: number,
  k: number,
  rows: string,
  inputs: ReadonlySet<string>,
  probed: ReadonlyMap<string, Probed>,
) {
  const body = new Emitter(pair.names, e.opset);
  const rename = new Map<string, string>();
  for (const name of inputs) rename.set(name, body.emit('Gather', [name, rows], [int('axis', 0)]));
  for (const name of pair.weights.keys())
    rename.set(name, pair.storeMerge(name, `${name}@${k}`, share));
  const nodes = streamNodes(pair);
  const all = renaming(pair.names, nodes, `@${k}`, rename);
  const graph = emptyGraph(`merge ${k}`);
  graph.node = [...body.nodes, ...copyNodes(nodes, all, `@${k}`)];
  graph.output = pair.outputs.map((name) => ({
    name: all.get(name) ?? name,
    type: tensorType(dtypeCode(known(probed, name).dtype)),
  }));
  return graph;
}

/** No rows of each output. */
function nothing(
  pair: Pair,
  { emitter: e, expert }: Branches,
  probed: ReadonlyMap<string, Probed>,
) {
  const graph = emptyGraph('none');
  const body = new Emitter(pair.names, e.opset);
  for (const name of pair.outputs) {
    const none = body.emit('Slice', [
      expert.get(name) ?? name,
      e.ints([0]),
      e.ints([0]),
      e.ints([0]),
    ]);
    graph.output.push({ name: none, type: tensorType(dtypeCode(known(probed, name).dtype)) });
  }
  graph.node = body.nodes;
  return graph;
}

function known(probed: ReadonlyMap<string, Probed>, name: string): Probed {
  const found = probed.get(name);
  if (!found) throw new Error(`${name} was not probed`);
  return found;
}
