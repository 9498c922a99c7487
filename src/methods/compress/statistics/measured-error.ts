import { batches } from '../../../data/index.js';
import { int, int64Tensor, makeNode, tensor } from '../../../graph/build.js';
import { modelInputs } from '../../../graph/interface.js';
import type { Model, NodeProto } from '../../../onnx/index.js';
import { openPart } from '../../../runtime/part.js';
import { withSession } from '../../../runtime/session.js';
import type { Part } from '../../calibration/collect.js';
import { PREFIX, sideBySide } from './measured.js';

/** A value that two networks have, with the channels that are left of it in the second. */
export interface ComparedValue {
  name: string;
  axis: number;
  kept: Uint32Array;
}

/** Examples at once. */
const batch = 8;

/**
 * Σ(u - ũ)² / Σu² of each value over the calibration data, u being the channels of the first network that
 * the second has kept. A value that is not a float, or all zeros, is absent.
 */
export async function measureErrors(
  { model, proto, calibration, threads, progress }: Part,
  compressed: Model,
  values: readonly ComparedValue[],
): Promise<Map<string, number>> {
  const joint = await sideBySide(proto, compressed);
  const nodes: NodeProto[] = [];
  const outputs: string[] = [];
  for (const { name, axis, kept } of values) {
    const at = (of: string) => `resect/error/${name}/${of}`;
    const indices = tensor('value', int64Tensor([...kept]));
    nodes.push(
      makeNode('Constant', [], at('kept'), [indices]),
      makeNode('Gather', [name, at('kept')], at('original'), [int('axis', axis)]),
      makeNode('Sub', [at('original'), PREFIX + name], at('difference')),
      makeNode('ReduceSumSquare', [at('difference')], at('error'), [int('keepdims', 0)]),
      makeNode('ReduceSumSquare', [at('original')], at('power'), [int('keepdims', 0)]),
    );
    outputs.push(at('error'), at('power'));
  }
  const graph = {
    ...joint.graph,
    node: [...joint.graph.node, ...nodes],
    output: outputs.map((name) => ({ name })),
    valueInfo: [],
  };
  const { bytes, folder } = await openPart(model, { ...joint.proto, graph });
  const sums = new Float64Array(outputs.length);
  const { dataset, indices } = calibration;
  let done = 0;
  await withSession(bytes, { threads, folder }, async (session) => {
    for await (const { feeds, size } of batches(dataset, indices, batch, modelInputs(proto))) {
      const seen = await session.run(feeds, outputs);
      for (const [i, name] of outputs.entries()) sums[i] += Number(seen[name].data[0]);
      done += size;
      progress(done, indices.length);
    }
  });
  return new Map(
    values.flatMap(({ name }, i) => {
      const error = sums[2 * i] / sums[2 * i + 1];
      return Number.isFinite(error) ? [[name, error] as const] : [];
    }),
  );
}
