import { add, mul, plus, reduceSum, scale, sub } from '../../../autodiff/emit.js';
import type { LossGraph } from '../../../autodiff/loss-graph.js';
import type { Floats } from '../../../autodiff/optimizer.js';
import { Tape } from '../../../autodiff/tape.js';
import { int, tensorType } from '../../../graph/build.js';
import {
  dtypeCode,
  encodeFloat32,
  Model,
  makeTensor,
  type TensorProto,
} from '../../../onnx/index.js';

/*
 * The variational autoencoder that models how representations e [batch, width] are distributed (LAF,
 * arXiv 2404.00506, in the form of the authors' code): two hidden layers on each side, z = μ + σ ε of
 * `latent` numbers, and a decoder that ends in a sigmoid although representations are not bound to (0, 1).
 * Only differences of reconstruction errors matter, and with a linear end they tell less.
 */

/** Of the loss, what the divergence from the normal distribution counts. */
const divergenceWeight = 0.025;

/** The deviation is exp(s / 2); s beyond this would overflow in float32. */
const largestLogVariance = 20;

/** Widths of the layers: of representations, hidden, hidden, of the latent variable. */
export type VaeSizes = readonly [width: number, outer: number, inner: number, latent: number];

export const vaeSizes = (width: number, latent: number): VaeSizes => [
  width,
  Math.max(16, Math.floor(width / 2)),
  Math.max(16, Math.floor(width / 8)),
  latent,
];

/** The weights of one, by name: matrices [out, in] and biases [out] of its linear layers. */
export type VaeWeights = ReadonlyMap<string, Floats>;

/** Its linear layers by name, in order, with the lengths of what they read and write. */
function layers([width, outer, inner, latent]: VaeSizes): [
  name: string,
  from: number,
  to: number,
][] {
  return [
    ['encoder.linear1', width, outer],
    ['encoder.linear2', outer, inner],
    ['encoder.linear3_1', inner, latent],
    ['encoder.linear3_2', inner, latent],
    ['decoder.linear1', latent, inner],
    ['decoder.linear2', inner, outer],
    ['decoder.linear3', outer, width],
  ];
}

/** Weights and biases uniform within 1/sqrt(inputs), torch's default. */
export function initialWeights(sizes: VaeSizes, random: () => number): VaeWeights {
  return new Map(
    layers(sizes).flatMap(([name, from, to]) => {
      const bound = 1 / Math.sqrt(from);
      const draw = (count: number) =>
        Float32Array.from({ length: count }, () => bound * (2 * random() - 1));
      return [
        [`${name}.weight`, draw(from * to)],
        [`${name}.bias`, draw(to)],
      ] as const;
    }),
  );
}

/** Weights as stored tensors. */
export function weightTensors(sizes: VaeSizes, weights: VaeWeights, prefix = ''): TensorProto[] {
  const tensor = (name: string, shape: number[]): TensorProto => {
    const values = Float32Array.from(weights.get(name) ?? []);
    const bytes = encodeFloat32(values, 'float32');
    return makeTensor({ name: `${prefix}${name}`, dtype: 'float32', shape, bytes });
  };
  return layers(sizes).flatMap(([name, from, to]) => [
    tensor(`${name}.weight`, [to, from]),
    tensor(`${name}.bias`, [to]),
  ]);
}

/** What one puts out, all [batch, ...]. */
export interface VaeOutputs {
  mean: string;
  deviation: string;
  reconstruction: string;
}

/**
 * Emits one.
 * @param e representations [batch, width], in float32, as the tape knows
 * @param noise ε [batch, latent], normal
 * @param prefix of the names of its weights, which stand in the graph
 */
export function emitVae(t: Tape, e: string, noise: string, prefix = ''): VaeOutputs {
  const linear = (x: string, name: string) =>
    t.emit('Gemm', [x, `${prefix}${name}.weight`, `${prefix}${name}.bias`], [int('transB', 1)]);
  const relu = (x: string) => t.emit('Relu', [x]);
  const code = relu(linear(relu(linear(e, 'encoder.linear1')), 'encoder.linear2'));
  const mean = linear(code, 'encoder.linear3_1');
  const bounds = [-largestLogVariance, largestLogVariance].map((bound) => t.scalar(bound, e));
  const logVariance = t.emit('Clip', [linear(code, 'encoder.linear3_2'), ...bounds]);
  const deviation = t.emit('Exp', [scale(t, logVariance, 0.5, e)]);
  const z = add(t, mean, mul(t, deviation, noise));
  const hidden = relu(linear(relu(linear(z, 'decoder.linear1')), 'decoder.linear2'));
  return {
    mean,
    deviation,
    reconstruction: t.emit('Sigmoid', [linear(hidden, 'decoder.linear3')]),
  };
}

/** ‖ê - e‖² of each row, [batch]. */
export function squaredError(t: Tape, e: string, { reconstruction }: VaeOutputs): string {
  const error = sub(t, reconstruction, e);
  return reduceSum(t, mul(t, error, error), [1], false);
}

/** Inputs of `vaeModel`. */
export const vaeInputs = { e: 'e', noise: 'noise' };

/** One as a model: representations and noise in, reconstructions out. */
export function vaeModel(
  sizes: VaeSizes,
  weights: VaeWeights,
): { model: Model; outputs: VaeOutputs } {
  const { e, noise } = vaeInputs;
  const t = new Tape(new Map([[e, { dtype: 'float32' }]]), [], 'vae/');
  const outputs = emitVae(t, e, noise);
  const float = (name: string) => ({ name, type: tensorType(dtypeCode('float32')) });
  const graph = {
    name: 'vae',
    node: t.nodes,
    initializer: [...weightTensors(sizes, weights), ...t.initializers],
    input: [float(e), float(noise)],
    output: [float(outputs.reconstruction)],
    valueInfo: [],
  };
  return {
    model: new Model({ irVersion: 8, opsetImport: [{ domain: '', version: 17 }], graph }),
    outputs,
  };
}

/** Mean of ‖ê - e‖² over the batch, and 0.025 of the mean divergence; the names of both. */
export function vaeLoss(outputs: VaeOutputs): LossGraph & { error: string; divergence: string } {
  const { e } = vaeInputs;
  const t = new Tape(new Map([[e, { dtype: 'float32' }]]), [], 'resect/loss/');
  const { mean, deviation } = outputs;
  const square = (x: string) => mul(t, x, x);
  const batchMean = (rows: string) => t.emit('ReduceMean', [rows], [int('keepdims', 0)]);
  const variance = square(deviation);
  // log(σ² + 1e-8) + 1 - μ² - σ²
  const terms = sub(
    t,
    plus(t, t.emit('Log', [plus(t, variance, 1e-8, e)]), 1, e),
    add(t, square(mean), variance),
  );
  const error = batchMean(squaredError(t, e, outputs));
  const divergence = scale(t, batchMean(reduceSum(t, terms, [1], false)), -0.5, e);
  const loss = add(t, error, scale(t, divergence, divergenceWeight, e));
  return {
    nodes: t.nodes,
    initializers: t.initializers,
    inputs: [],
    loss,
    error,
    divergence,
    shown: [],
  };
}
