import { modelError } from '../../../errors.js';
import { mainGraph } from '../../../graph/bodies.js';
import { makeNode } from '../../../graph/build.js';
import { DTYPES, type Model } from '../../../onnx/index.js';
import { openPart } from '../../../runtime/part.js';
import { type Feeds, withSession } from '../../../runtime/session.js';
import type { Probed } from './sample.js';

/** Inputs for a batch of that many samples. */
export type MakeFeeds = (batch: number) => Promise<Feeds>;

/** Batches that values are looked at with: what grows in step holds samples along its first axis. */
const sizes = [2, 3];

/**
 * Ranks and element types of values, and how many rows of each belong to one sample, by running the
 * model twice.
 * @throws {ResectError} exit 5 when a value has not the samples along its first axis
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
    const rows = three[0] - two[0];
    const dtype = DTYPES.find((d) => d === dtypes.get(name));
    const fits = rows >= 1 && sizes.every((size, s) => dims[s][i][0] === rows * size);
    if (!fits || !dtype)
      throw modelError('A value does not hold the samples along its first axis.', {
        where: `value ${name}`,
        expected: `${sizes[0]} and ${sizes[1]} rows, or multiples`,
        got: `[${two.join(', ')}] and [${three.join(', ')}]`,
        hint: 'Choose --mode batch, or export the model with an open batch axis.',
      });
    probed.set(name, { rank: two.length, rows, dtype });
  }
  return probed;
}
