import type { ModelProto, NodeProto, TensorProto } from '../../../src/onnx/index.js';
import { floats, ints, model, node, value, weight } from '../../support/protos.js';
import { noise } from '../helpers.js';

/** Builds small networks layer by layer. Each call adds a node and returns the name of what it puts out. */
export class Network {
  readonly nodes: NodeProto[] = [];
  readonly stored: TensorProto[] = [];

  op(
    opType: string,
    input: string[],
    attributes: Parameters<typeof node>[3] = {},
    name = `${opType.toLowerCase()}${this.nodes.length}`,
  ): string {
    this.nodes.push(node(opType, input, [name], attributes));
    return name;
  }

  /** A node with several outputs. */
  ops(
    opType: string,
    input: string[],
    output: string[],
    attributes: Parameters<typeof node>[3] = {},
  ): string[] {
    this.nodes.push(node(opType, input, output, attributes));
    return output;
  }

  weight(shape: number[]): string {
    const name = `w${this.stored.length}`;
    this.stored.push(weight(name, shape));
    return name;
  }

  positive(shape: number[]): string {
    const name = `p${this.stored.length}`;
    const values = noise(
      shape.reduce((n, d) => n * d, 1),
      this.stored.length,
    );
    this.stored.push(
      floats(
        name,
        shape,
        values.map((v) => 1 + v / 2),
      ),
    );
    return name;
  }

  ints(...values: number[]): string {
    const name = `i${this.stored.length}`;
    this.stored.push(ints(name, ...values));
    return name;
  }

  floats(...values: number[]): string {
    const name = `f${this.stored.length}`;
    this.stored.push(floats(name, [values.length], Float32Array.from(values)));
    return name;
  }

  scalar(x: number): string {
    const name = `s${this.stored.length}`;
    this.stored.push(floats(name, [], Float32Array.of(x)));
    return name;
  }

  /** A 3x3 convolution, or 1x1, that keeps height and width. */
  conv(
    x: string,
    from: number,
    to: number,
    { kernel = 3, group = 1, name }: { kernel?: number; group?: number; name?: string } = {},
  ): string {
    const p = (kernel - 1) / 2;
    const w = this.weight([to, from / group, kernel, kernel]);
    return this.op('Conv', [x, w, this.weight([to])], { pads: [p, p, p, p], group }, name);
  }

  batchNorm(x: string, channels: number): string {
    const [scale, mean, variance] = [
      this.positive([channels]),
      this.weight([channels]),
      this.positive([channels]),
    ];
    return this.op('BatchNormalization', [x, scale, this.weight([channels]), mean, variance]);
  }

  convBnRelu(
    x: string,
    from: number,
    to: number,
    options: { kernel?: number; group?: number; name?: string } = {},
  ): string {
    return this.op('Relu', [this.batchNorm(this.conv(x, from, to, options), to)]);
  }

  gemm(x: string, from: number, to: number, name?: string): string {
    return this.op('Gemm', [x, this.weight([to, from]), this.weight([to])], { transB: 1 }, name);
  }

  /** Global pooling and a layer of three classes. */
  head(x: string, channels: number): string {
    const pooled = this.op('GlobalAveragePool', [x]);
    return this.gemm(this.op('Flatten', [pooled]), channels, 3, 'logits');
  }

  model(output: string, inputDims: number[], opset = 17): ModelProto {
    return model(
      {
        node: this.nodes,
        initializer: this.stored,
        input: [value('x', inputDims)],
        output: [{ name: output }],
      },
      { opsetImport: [{ version: opset }] },
    );
  }
}

/** A network on images `[2, 3, 8, 8]`. */
export const images = [2, 3, 8, 8];

export function network(build: (n: Network) => string, dims = images, opset?: number): ModelProto {
  const n = new Network();
  return n.model(build(n), dims, opset);
}
