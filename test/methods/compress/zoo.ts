import { tensor as tensorAttribute } from '../../../src/graph/build.js';
import type { ModelProto } from '../../../src/onnx/index.js';
import { type Network, network } from '../../graph/channels/models.js';
import { withFloats } from '../../graph/helpers.js';
import { node } from '../../support/protos.js';
import { randomized } from './support.js';

/** Small networks of every kind that is to be cut, with random weights. */

const relu6 = (n: Network, x: string) => n.op('Clip', [x, n.scalar(0), n.scalar(6)]);

const convBn = (
  n: Network,
  x: string,
  from: number,
  to: number,
  options: Parameters<Network['conv']>[3] = {},
) => n.batchNorm(n.conv(x, from, to, options), to);

/** A convolution without bias. */
const bare = (n: Network, x: string, from: number, to: number, kernel = 3) => {
  const p = (kernel - 1) / 2;
  return n.op('Conv', [x, n.weight([to, from, kernel, kernel])], { pads: [p, p, p, p] });
};

const gemm = (n: Network, x: string, from: number, to: number) =>
  n.op('Gemm', [x, n.weight([from, to]), n.weight([to])]);

const pooled = (n: Network, x: string) =>
  n.op('MaxPool', [x], { kernel_shape: [2, 2], strides: [2, 2] });

function vgg(n: Network, transB: boolean): string {
  const a = pooled(n, n.op('Relu', [n.conv('x', 3, 8)]));
  const b = pooled(n, n.convBnRelu(a, 8, 12));
  const flat = n.op('Flatten', [b]);
  const hidden = n.op('Relu', [transB ? n.gemm(flat, 48, 10) : gemm(n, flat, 48, 10)]);
  return transB ? n.gemm(hidden, 10, 3, 'logits') : gemm(n, hidden, 10, 3);
}

function basic(n: Network): string {
  let x = n.convBnRelu('x', 3, 8);
  const block = (from: number, to: number) => {
    const inner = n.convBnRelu(x, from, to);
    const shortcut = from === to ? x : convBn(n, x, from, to, { kernel: 1 });
    x = n.op('Relu', [n.op('Add', [convBn(n, inner, to, to), shortcut])]);
  };
  block(8, 8);
  block(8, 12);
  return n.head(x, 12);
}

function bottleneck(n: Network): string {
  let x = n.convBnRelu('x', 3, 12, { kernel: 1 });
  for (let i = 0; i < 2; i++) {
    const a = n.convBnRelu(x, 12, 6, { kernel: 1 });
    const b = n.convBnRelu(a, 6, 6);
    x = n.op('Relu', [n.op('Add', [convBn(n, b, 6, 12, { kernel: 1 }), x])]);
  }
  return n.head(x, 12);
}

function dense(n: Network): string {
  let [x, width] = [n.convBnRelu('x', 3, 6), 6];
  for (let i = 0; i < 2; i++) {
    const read = n.op('Relu', [n.batchNorm(x, width)]);
    const squeezed = n.convBnRelu(read, width, 8, { kernel: 1 });
    x = n.op('Concat', [x, n.conv(squeezed, 8, 6)], { axis: 1 });
    width += 6;
  }
  return n.head(n.op('Relu', [n.batchNorm(x, width)]), width);
}

function mobile(n: Network, multiplier: number): string {
  let x = relu6(n, convBn(n, 'x', 3, 8));
  for (let i = 0; i < 2; i++) {
    const wide = relu6(n, convBn(n, x, 8, 16, { kernel: 1 }));
    const deep = relu6(n, convBn(n, wide, 16, 16 * multiplier, { group: 16 }));
    x = n.op('Add', [x, convBn(n, deep, 16 * multiplier, 8, { kernel: 1 })]);
  }
  return n.head(relu6(n, convBn(n, x, 8, 12, { kernel: 1 })), 12);
}

function grouped(n: Network, group: number): string {
  const a = n.convBnRelu('x', 3, 16);
  const b = n.convBnRelu(a, 16, 24, { group });
  return n.head(n.convBnRelu(b, 24, 10), 10);
}

function transposed(n: Network, group: number): string {
  const a = n.convBnRelu('x', 3, 8);
  const w = n.weight([8, 12 / group, 2, 2]);
  const up = n.op('ConvTranspose', [a, w, n.weight([12])], { strides: [2, 2], group });
  return n.conv(n.op('Relu', [n.batchNorm(up, 12)]), 12, 3, { kernel: 1, name: 'y' });
}

function squeezeExcite(n: Network): string {
  const x = n.convBnRelu('x', 3, 12);
  const squeezed = n.op('Relu', [n.conv(n.op('GlobalAveragePool', [x]), 12, 6, { kernel: 1 })]);
  const gate = n.op('Sigmoid', [n.conv(squeezed, 6, 12, { kernel: 1 })]);
  return n.head(n.convBnRelu(n.op('Mul', [x, gate]), 12, 8), 8);
}

function split(n: Network): string {
  const x = n.convBnRelu('x', 3, 12);
  const [a, b] = n.ops('Split', [x, n.ints(6, 6)], ['left', 'right'], { axis: 1 });
  const joined = n.op('Concat', [n.convBnRelu(a, 6, 8), n.convBnRelu(b, 6, 4)], { axis: 1 });
  return n.head(n.convBnRelu(joined, 12, 8), 8);
}

function shuffle(n: Network): string {
  const a = n.convBnRelu(n.convBnRelu('x', 3, 12), 12, 12, { kernel: 1, group: 2 });
  const apart = n.op('Reshape', [a, n.ints(2, 2, 6, 8, 8)]);
  const turned = n.op('Transpose', [apart], { perm: [0, 2, 1, 3, 4] });
  const b = n.op('Reshape', [turned, n.ints(2, 12, 8, 8)]);
  return n.head(n.convBnRelu(n.convBnRelu(b, 12, 12, { group: 2 }), 12, 8), 8);
}

function resized(n: Network): string {
  const x = n.convBnRelu(pooled(n, n.convBnRelu('x', 3, 8)), 8, 12);
  const up = n.op('Resize', [x, '', n.floats(1, 1, 2, 2)], { mode: 'nearest' });
  return n.conv(n.convBnRelu(up, 12, 8), 8, 2, { kernel: 1, name: 'y' });
}

function lastAxis(n: Network): string {
  const x = n.convBnRelu('x', 3, 12);
  const nhwc = n.op('Transpose', [x], { perm: [0, 2, 3, 1] });
  const hidden = n.op('Add', [n.op('MatMul', [nhwc, n.weight([12, 8])]), n.weight([8])]);
  return n.op('MatMul', [n.op('Relu', [hidden]), n.weight([8, 3])]);
}

function padded(n: Network): string {
  const x = n.op('Pad', [n.convBnRelu('x', 3, 10), n.ints(0, 0, 1, 1, 0, 0, 1, 1)]);
  const w = n.weight([8, 10, 3, 3]);
  return n.head(n.op('Relu', [n.batchNorm(n.op('Conv', [x, w]), 8)]), 8);
}

/** The model with its initializers in Constant nodes. */
function inConstants(proto: ModelProto): ModelProto {
  const graph = proto.graph!;
  const constants = graph.initializer.map((t) => {
    const { name = '', ...value } = t;
    return { ...node('Constant', [], [name]), attribute: [tensorAttribute('value', value)] };
  });
  return { ...proto, graph: { ...graph, node: [...constants, ...graph.node], initializer: [] } };
}

/** Two branches of the same convolution, and two heads of the same weight. */
function shared(n: Network): string {
  const x = n.convBnRelu('x', 3, 8);
  const w = n.weight([10, 8, 3, 3]);
  const pads = { pads: [1, 1, 1, 1] };
  const a = n.op('Relu', [n.batchNorm(n.op('Conv', [x, w], pads), 10)]);
  const b = n.op('Relu', [n.batchNorm(n.op('Conv', [n.op('Neg', [x]), w], pads), 10)]);
  const v = n.weight([6, 10, 1, 1]);
  const bias = n.weight([6]);
  const left = n.op('Conv', [a, v, bias]);
  const right = n.op('Conv', [b, v, bias]);
  return n.head(n.op('Relu', [n.op('Add', [left, right])]), 6);
}

function withoutNorms(n: Network): string {
  const a = n.op('Relu', [bare(n, 'x', 3, 10)]);
  const b = n.op('Relu', [bare(n, a, 10, 12)]);
  const w = n.weight([12, 3]);
  return n.op('Gemm', [n.op('Flatten', [n.op('GlobalAveragePool', [b])]), w]);
}

function perceptron(n: Network): string {
  const a = n.op('Relu', [n.op('Add', [n.op('MatMul', ['x', n.weight([6, 16])]), n.weight([16])])]);
  const b = n.op('Tanh', [n.op('MatMul', [a, n.weight([16, 12])])]);
  return n.op('MatMul', [b, n.weight([12, 3])]);
}

function scaledGemm(n: Network): string {
  const gemms = [
    [6, 16],
    [16, 12],
    [12, 3],
  ];
  let x = 'x';
  for (const [from, to] of gemms) {
    const y = n.op('Gemm', [x, n.weight([to, from]), n.weight([to])], { transB: 1 });
    n.nodes.push(withFloats(n.nodes.pop()!, { alpha: 0.5, beta: 2 }));
    x = to === 3 ? y : n.op('Relu', [y]);
  }
  return x;
}

const flat = [4, 6];

export const zoo: Record<string, () => ModelProto> = {
  'VGG, transB': () => network((n) => vgg(n, true)),
  'VGG, no transB': () => network((n) => vgg(n, false)),
  'ResNet, basic blocks': () => network(basic),
  'ResNet, bottlenecks': () => network(bottleneck),
  DenseNet: () => network(dense),
  MobileNet: () => network((n) => mobile(n, 1)),
  'depthwise multiplier 2': () => network((n) => mobile(n, 2)),
  'two groups': () => network((n) => grouped(n, 2)),
  'four groups': () => network((n) => grouped(n, 4)),
  ConvTranspose: () => network((n) => transposed(n, 1)),
  'ConvTranspose, two groups': () => network((n) => transposed(n, 2)),
  'squeeze and excite': () => network(squeezeExcite),
  Split: () => network(split),
  'channel shuffle': () => network(shuffle),
  Resize: () => network(resized),
  'channels last': () => network(lastAxis),
  Pad: () => network(padded),
  'weights in Constant nodes': () => inConstants(randomized(network(basic), 1)),
  'shared weights': () => network(shared),
  'no biases, no norms': () => network(withoutNorms),
  'MatMul with Add and without': () => network(perceptron, flat),
  'Gemm with alpha and beta': () => network(scaledGemm, flat),
};

/** A network of the zoo, the same for the same seed. */
export const member = (name: string, seed = 1): ModelProto => randomized(zoo[name](), seed);
