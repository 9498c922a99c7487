import { modelError } from '../../../errors.js';
import { mainGraph } from '../../../graph/bodies.js';
import { makeNode } from '../../../graph/build.js';
import { DTYPES, type Model } from '../../../onnx/index.js';
import { openPart } from '../../../runtime/part.js';
import { type Feeds, withSession } from '../../../runtime/session.js';
import type { Probed } from './sample.js';

/** Inputs for a batch of that many samples. */
export type MakeFeeds = (batch: number) => Promise<Feeds>;

/** Batches that values are looked at with: the axis that grows in step holds the samples. */
const sizes = [2, 3];

/**
 * Ranks and element types of values, and where the samples are in each, by running the model twice. Values
 * that do not hold the samples along one axis are left out.
 */
export async function probe(
  model: Model,
  values: readonly string[],
  feeds: MakeFeeds,
): Promise<Map<string, Probed>> {
  const probed = new Map<string, Probed>();
  if (values.length === 0) return probed;
  const graph = mainGraph(model.proto);
  const shapes = values.map((name, i) => makeNode('Shape', [name], `resect/shape/${i}`));
  const shapeNames = shapes.map(({ output }) => output[0]);
  const variant = {
    ...model.proto,
    graph: {
      ...graph,
      node: [...graph.node, ...shapes],
      output: [...values, ...shapeNames].map((name) => ({ name })),
    },
  };
  const { bytes, folder } = await openPart(model, variant);
  const { dtypes, dims } = await withSession(bytes, { folder, threads: 1 }, async (session) => {
    const runs: Feeds[] = [];
    for (const size of sizes) runs.push(await session.run(await feeds(size), shapeNames));
    return {
      dtypes: new Map(session.outputs.map(({ name, dtype }) => [name, dtype])),
      dims: runs.map((run) => shapeNames.map((name) => Array.from(run[name].data, Number))),
    };
  });
  for (const [i, name] of values.entries()) {
    const [two, three] = dims.map((run) => run[i]);
    const grown = two.flatMap((size, axis) => (size === three[axis] ? [] : [axis]));
    const [axis] = grown;
    const rows = three[axis] - two[axis];
    const dtype = DTYPES.find((d) => d === dtypes.get(name));
    const fits = grown.length === 1 && sizes.every((size, s) => dims[s][i][axis] === rows * size);
    if (fits && rows >= 1 && dtype) probed.set(name, { rank: two.length, axis, rows, dtype });
  }
  return probed;
}

/**
 * As `probe`, of the outputs of a model.
 * @throws {ResectError} exit 5 when an output has not one row for each sample
 */
export async function probeOutputs(
  model: Model,
  outputs: readonly string[],
  feeds: MakeFeeds,
): Promise<Map<string, Probed>> {
  const probed = await probe(model, outputs, feeds);
  const odd = outputs.find((name) => probed.get(name)?.axis !== 0 || probed.get(name)?.rows !== 1);
  if (odd === undefined) return probed;
  throw modelError('An output does not hold the samples along its first axis.', {
    where: `output ${odd}`,
    expected: 'as many rows as the inputs have samples',
    hint: 'Choose --mode batch, or export the model with an open batch axis.',
  });
}
