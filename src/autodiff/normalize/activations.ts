import { float } from '../../graph/build.js';
import { attribute, floatAttribute } from '../../graph/nodes.js';
import type { Expansion, RewriteRule } from './rewrite.js';

/** Activations that ops of onnxruntime or later opsets write as one node, in parts that have gradients. */
export const activations: Record<string, RewriteRule> = {
  Gelu: (x) => {
    const approximate = attribute(x.node, 'approximate')?.s;
    const tanh = approximate && Buffer.from(approximate).toString() === 'tanh';
    if (tanh) tanhGelu(x, x.input(0));
    else erfGelu(x, x.input(0));
  },
  'com.microsoft.Gelu': (x) => erfGelu(x, x.input(0)),
  'com.microsoft.BiasGelu': (x) => erfGelu(x, x.add('Add', [x.input(0), x.input(1)])),
  'com.microsoft.FastGelu': (x) =>
    tanhGelu(x, x.input(1) ? x.add('Add', [x.input(0), x.input(1)]) : x.input(0)),
  'com.microsoft.QuickGelu': (x) => swish(x, floatAttribute(x.node, 'alpha', 1.702)),
  Swish: (x) => swish(x, floatAttribute(x.node, 'alpha', 1)),
  HardSwish: (x) => {
    const gate = x.add('HardSigmoid', [x.input(0)], [float('alpha', 1 / 6), float('beta', 0.5)]);
    x.add('Mul', [x.input(0), gate], [], x.output());
  },
  Mish: (x) => {
    const gate = x.add('Tanh', [x.add('Softplus', [x.input(0)])]);
    x.add('Mul', [x.input(0), gate], [], x.output());
  },
  Shrink: (x) => {
    const input = x.input(0);
    const bias = x.float(floatAttribute(x.node, 'bias', 0), input);
    const lambd = floatAttribute(x.node, 'lambd', 0.5);
    const below = x.add('Less', [input, x.float(-lambd, input)]);
    const above = x.add('Greater', [input, x.float(lambd, input)]);
    const rest = x.add('Where', [above, x.add('Sub', [input, bias]), x.float(0, input)]);
    x.add('Where', [below, x.add('Add', [input, bias]), rest], [], x.output());
  },
};

/** v/2 (1 + erf(v/√2)). */
function erfGelu(x: Expansion, v: string): void {
  const erf = x.add('Erf', [x.add('Mul', [v, x.float(Math.SQRT1_2, v)])]);
  const gate = x.add('Mul', [x.add('Add', [erf, x.float(1, v)]), x.float(0.5, v)]);
  x.add('Mul', [v, gate], [], x.output());
}

/** v/2 (1 + tanh(√(2/π) (v + 0.044715 v³))). */
function tanhGelu(x: Expansion, v: string): void {
  const cubic = x.add('Mul', [x.add('Mul', [v, v]), x.float(0.044715, v)]);
  const slope = x.add('Mul', [
    x.add('Add', [cubic, x.float(1, v)]),
    x.float(Math.sqrt(2 / Math.PI), v),
  ]);
  const tanh = x.add('Tanh', [x.add('Mul', [v, slope])]);
  const gate = x.add('Mul', [x.add('Add', [tanh, x.float(1, v)]), x.float(0.5, v)]);
  x.add('Mul', [v, gate], [], x.output());
}

/** v σ(alpha v). */
function swish(x: Expansion, alpha: number): void {
  const v = x.input(0);
  const scaled = alpha === 1 ? v : x.add('Mul', [v, x.float(alpha, v)]);
  x.add('Mul', [v, x.add('Sigmoid', [scaled])], [], x.output());
}
