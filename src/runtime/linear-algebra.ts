import type { TensorData } from '../data/index.js';
import { AttributeType, dtypeCode, encodeModel } from '../onnx/index.js';
import { Session } from './session.js';

/**
 * Matrix products on the runtime's kernels, which are far faster than loops in JavaScript.
 * Release it when done.
 */
export class LinearAlgebra {
  readonly #session: Session;
  #last: { x: Float32Array; gram: Float32Array } | undefined;

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

  /** xᵀx [k, k] of x [n, k]. Remembers the last one: layers that read one activation ask in a row. */
  async gram(x: Float32Array, k: number): Promise<Float32Array> {
    if (this.#last?.x !== x) {
      const turned = transpose(x, x.length / k, k);
      this.#last = { x, gram: await this.timesTransposed(turned, turned, x.length / k) };
    }
    return this.#last.gram;
  }

  release(): Promise<void> {
    return this.#session.release();
  }
}

/** [rows, cols] to [cols, rows]. */
function transpose(values: Float32Array, rows: number, cols: number): Float32Array {
  const turned = new Float32Array(values.length);
  for (let r = 0, i = 0; r < rows; r++) {
    for (let c = 0; c < cols; c++, i++) turned[c * rows + r] = values[i];
  }
  return turned;
}
