import type { z } from 'zod';
import { readModel } from '../../onnx/index.js';
import { openPart } from '../../runtime/part.js';
import { Session } from '../../runtime/session.js';
import { weightedSum } from './maths/linear.js';
import { type bnParameter, type Prepared, prepare } from './prepare.js';
import { mergeInto } from './static/merge-into.js';

/** Static interpolations of models, to measure a merge against; nothing is written. */
export class Interpolations {
  private constructor(readonly prepared: Prepared) {}

  /**
   * @param files of the models; all have the graph and the names of the first
   * @throws {ResectError} exit 5 where they do not pair
   */
  static async of(
    files: readonly string[],
    selects: (name: string) => boolean,
    bn: z.infer<typeof bnParameter>,
  ): Promise<Interpolations> {
    const models = await Promise.all(
      files.map(async (label) => ({ model: await readModel(label), label })),
    );
    return new Interpolations(await prepare(models, selects, { bn }));
  }

  /** A session of the model with these shares of each model's weights, which sum to 1. */
  async open(shares: readonly number[], threads: number): Promise<Session> {
    const { models, tensors } = this.prepared;
    mergeInto(models, tensors, (values) => weightedSum(values, shares));
    const [{ model }] = models;
    const { bytes, folder } = await openPart(model, model.proto);
    return Session.open(bytes, { folder, threads });
  }
}
