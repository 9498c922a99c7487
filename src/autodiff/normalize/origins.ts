import type { TensorProto } from '../../onnx/index.js';

/**
 * Which tensor of the user's model a stand-in holds the values of. A step that makes a tensor from
 * another records it here, so that a gradient of the last one finds its way to the first.
 */
export class Origins {
  readonly #from = new Map<TensorProto, TensorProto>();

  /** `tensor` itself when no step has replaced it. */
  of(tensor: TensorProto): TensorProto {
    return this.#from.get(tensor) ?? tensor;
  }

  /** Records that `copy` stands for what `tensor` stands for; returns it. */
  record(copy: TensorProto, tensor: TensorProto): TensorProto {
    this.#from.set(copy, this.of(tensor));
    return copy;
  }
}
