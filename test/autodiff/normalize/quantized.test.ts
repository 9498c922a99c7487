import { refuseQuantized } from '../../../src/autodiff/normalize/quantized.js';
import { makeNode } from '../../../src/graph/build.js';
import { modelOf } from './helpers.js';

const model = (op: string, domain = '') =>
  modelOf({
    opset: 17,
    nodes: [{ ...makeNode(op, ['x'], 'y', [], domain), name: 'here' }],
    feeds: {},
  });

test.each([
  'QuantizeLinear',
  'DequantizeLinear',
  'DynamicQuantizeLinear',
  'QLinearConv',
  'QLinearMatMul',
  'MatMulInteger',
  'ConvInteger',
])('%s is refused', (op) => {
  expect(() => refuseQuantized(model(op))).toThrow(
    expect.objectContaining({
      exitCode: 5,
      detail: expect.objectContaining({ where: `node here (${op})` }),
    }),
  );
});

test.each([
  'QLinearAdd',
  'QGemm',
  'QAttention',
  'MatMulNBits',
  'MatMulIntegerToFloat',
  'DynamicQuantizeMatMul',
  'DequantizeLinear',
])('com.microsoft.%s is refused', (op) => {
  expect(() => refuseQuantized(model(op, 'com.microsoft'))).toThrow(/quantised/);
});

test.each(['MatMul', 'QuickGelu', 'Linear', 'Attention'])('%s is not', (op) => {
  expect(() => refuseQuantized(model(op))).not.toThrow();
});
