import { branch, emptyGraph, int, makeNode, tensorType } from '../../../graph/build.js';
import { dtypeCode, type NodeProto } from '../../../onnx/index.js';
import { type DynamicOptions, mergedWeight } from './batch.js';
import { commit, emitBranches } from './branches.js';
import { Emitter } from './emitter.js';
import { copyNodes, type Pair, renaming } from './pair.js';
import type { Probed } from './sample.js';

/**
 * As `buildSample`, for any op: a loop over the samples merges the weights for each of them.
 * @param inputs of the model that hold the samples along their first axis
 * @param probed of every output of the model
 */
export function buildScan(
  pair: Pair,
  inputs: ReadonlySet<string>,
  probed: ReadonlyMap<string, Probed>,
  { scores, rule, outputs }: DynamicOptions,
): void {
  const branches = emitBranches(pair, scores, rule, false);
  const { emitter, coefficient } = branches;
  const { names } = pair;
  const body = new Emitter(names, emitter.opset);
  const share = names.fresh('merge/share');
  const graph = { ...emptyGraph('sample'), input: [{ name: share, type: tensorType(1, []) }] };

  const rename = new Map<string, string>();
  const scanned = pair.graph.input.filter(({ name = '' }) => inputs.has(name));
  for (const { name = '', type } of scanned) {
    const item = names.fresh(`${name}@s`);
    graph.input.push({ name: item, type: tensorType(type?.tensorType?.elemType ?? 0) });
    rename.set(name, body.emit('Unsqueeze', [item, emitter.ints([0])]));
  }
  for (const name of pair.weights.keys())
    rename.set(name, mergedWeight(body, pair, name, share, rule));

  const nodes = streamNodes(pair);
  const all = renaming(names, nodes, '@s', rename);
  body.nodes.push(...copyNodes(nodes, all, '@s'));
  const results = pair.outputs.map((name) => {
    const known = probed.get(name);
    if (!known) throw new Error(`${name} was not probed`);
    const item = body.emit('Squeeze', [all.get(name) ?? name, emitter.ints([0])]);
    graph.output.push({ name: item, type: tensorType(dtypeCode(known.dtype)) });
    return name;
  });
  graph.node = body.nodes;
  const scan = makeNode(
    'Scan',
    [coefficient.share, ...scanned.map(({ name = '' }) => name)],
    results,
    [branch('body', graph), int('num_scan_inputs', 1 + scanned.length)],
  );
  emitter.initializers.push(...body.initializers);
  commit(pair, branches, [scan], { outputs });
}

/** The nodes of a whole pass: all but those that make the same of constants alone. */
export const streamNodes = ({ nodes, fed, differing }: Pair): NodeProto[] =>
  nodes.filter(({ output }) => output.some((name) => fed.has(name) || differing.has(name)));
