import type { TensorData } from '../data/index.js';
import { AttributeType, dtypeCode, encodeModel } from '../onnx/index.js';
import { Session } from './session.js';

/**
 * Matrix products on the runtime's kernels, which are far faster than loops in JavaScript.
 * Release it when done.
 */
export class LinearAlgebra {
  readonly #session: Session;

  private constructor(session: Session) {
    this.#session = session;
  }

  static async open(threads?: number): Promise<LinearAlgebra> {
    const float = { tensorType: { elemType: dtypeCode('float32') } };
    const model = encodeModel({
      irVersion: 8,
      opsetImport: [{ domain: '', version: 13 }],
      graph: {
        name: 'product',
        node: [
          {
            opType: 'Gemm',
            name: 'product',
            input: ['a', 'b'],
            output: ['c'],
            attribute: [{ name: 'transB', type: AttributeType.int, i: 1 }],
          },
        ],
        initializer: [],
        valueInfo: [],
        input: ['a', 'b'].map((name) => ({ name, type: float })),
        output: [{ name: 'c', type: float }],
      },
    });
    return new LinearAlgebra(await Session.open(model, { threads }));
  }

  /** a·bᵀ [m, n] in float32, for a [m, k] and b [n, k]. */
  async timesTransposed(a: Float32Array, b: Float32Array, k: number): Promise<Float32Array> {
    const matrix = (data: Float32Array): TensorData => ({
      dtype: 'float32',
      dims: [data.length / k, k],
      data,
    });
    const { c } = await this.#session.run({ a: matrix(a), b: matrix(b) });
    return c.data as Float32Array;
  }

  release(): Promise<void> {
    return this.#session.release();
  }
}
