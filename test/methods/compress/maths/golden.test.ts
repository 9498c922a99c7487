import { type BatchNorm, outputAffine } from '../../../../src/methods/compress/maths/batch-norm.js';
import { eliminate } from '../../../../src/methods/compress/maths/elimination.js';
import { equalize } from '../../../../src/methods/compress/maths/equalize.js';
import {
  relu,
  reluCovariance,
  reluMoments,
} from '../../../../src/methods/compress/maths/gaussian-relu.js';
import { gaussianStep } from '../../../../src/methods/compress/maths/gaussian-step.js';
import { gptq } from '../../../../src/methods/compress/maths/gptq.js';
import { mixAxis } from '../../../../src/methods/compress/maths/mixing.js';
import { neuronMerging } from '../../../../src/methods/compress/maths/neuron-merging.js';
import {
  dequantize,
  leastSquaresScales,
  maxScales,
  midRise,
  quantize,
} from '../../../../src/methods/compress/maths/quantize.js';
import { outputShift, reconstruct } from '../../../../src/methods/compress/maths/reconstruct.js';
import { highest, l1Norms, l2Norms } from '../../../../src/methods/compress/maths/select.js';
import { roundingScales, udfcMixing } from '../../../../src/methods/compress/maths/udfc.js';
import { type GoldenCase, goldenFolder } from '../../../support/golden-cases.js';

const { cases: goldenCases, ops: goldenOps } = goldenFolder('udfc');

function forEachCase(op: string, check: (golden: GoldenCase) => void): void {
  test.each(goldenCases(op).map((golden) => [golden.record.name, golden] as const))(
    '%s',
    (_, golden) => check(golden),
  );
}

const normOf = (golden: GoldenCase): BatchNorm => ({
  gamma: golden.input('gamma'),
  beta: golden.input('beta'),
  mean: golden.input('mean'),
  variance: golden.input('var'),
  epsilon: golden.number('bn_eps'),
});

const affineOf = (golden: GoldenCase) => outputAffine(golden.input('gamma').length, normOf(golden));

function consumerOf(golden: GoldenCase) {
  const { dims, values } = golden.array('V');
  const [outer, channels, ...kernel] = dims;
  const view = { outer, channels, inner: kernel.reduce((a, b) => a * b, 1) };
  return { v: values, view };
}

const shapeOf = (golden: GoldenCase) => {
  const [rows, ...rest] = golden.array('W').dims;
  return { w: golden.input('W'), rows, cols: rest.reduce((a, b) => a * b, 1), rest };
};

describe('selection', () => {
  forEachCase('keep_topk_l1', (golden) => {
    const { w, rows, cols } = shapeOf(golden);
    golden.expectOutput('keep', highest(l1Norms(w, rows, cols), golden.number('keep')));
  });
  forEachCase('keep_topk_l2', (golden) => {
    const { w, rows, cols } = shapeOf(golden);
    golden.expectOutput('keep', highest(l2Norms(w, rows, cols), golden.number('keep')));
  });
  forEachCase('greedy_backward', (golden) => {
    const view = { covariance: golden.input('Cy'), importance: golden.input('Q') };
    const channels = Math.sqrt(view.covariance.length);
    const result = eliminate(channels, [view], { keep: 1, ridge: golden.number('ridge') });
    golden.expectOutput('order', result!.order);
    golden.expectOutput('rel_cost', result!.costs);
  });
});

describe('mixing', () => {
  const checkUdfc = (golden: GoldenCase) => {
    const { params } = golden.record;
    const kept = golden.indices('keep');
    const { s } = udfcMixing(
      {
        filters: golden.input('W'),
        rounded: golden.record.inputs.Wq ? golden.input('Wq') : undefined,
        affine: affineOf(golden),
        kept,
      },
      {
        alpha1: golden.number('alpha1'),
        alpha2: golden.number('alpha2'),
        relativeRidge: params.ridge_relative === true,
        prior: params.prior_identity ? 'identity' : 'zero',
      },
    );
    golden.expectOutput('S', s);
    const { v, view } = consumerOf(golden);
    golden.expectOutput('V_new', mixAxis(v, view, s, kept.length));
  };
  forEachCase('udfc_prune', checkUdfc);
  forEachCase('udfc_joint', checkUdfc);
  forEachCase('udfc_quant_scalar', (golden) => {
    const { alpha1, alpha2 } = { alpha1: golden.number('alpha1'), alpha2: golden.number('alpha2') };
    const scales = roundingScales(golden.input('W'), golden.input('Wq'), affineOf(golden), {
      alpha1,
      alpha2,
    });
    golden.expectOutput('s', scales);
  });
  forEachCase('neuron_merging', (golden) => {
    const kept = golden.indices('keep');
    const s = neuronMerging(golden.input('W'), affineOf(golden), kept, {
      lambda: golden.number('lam'),
      threshold: golden.number('cos_threshold'),
    });
    golden.expectOutput('S', s);
    const { v, view } = consumerOf(golden);
    golden.expectOutput('V_new', mixAxis(v, view, s, kept.length));
  });
  forEachCase('gauss_reconstruct', (golden) => {
    const kept = golden.indices('keep');
    const moments = { mean: golden.input('ey'), covariance: golden.input('Cy') };
    const { s, delta } = reconstruct(moments, kept, undefined, { ridge: golden.number('lam') });
    golden.expectOutput('S', s);
    golden.expectOutput('delta', delta);
    const { v, view } = consumerOf(golden);
    golden.expectOutput('V_new', mixAxis(v, view, s, kept.length));
    golden.expectOutput('out_shift', outputShift(v, view, delta));
  });
});

describe('rounding', () => {
  forEachCase('quant_midrise_per_tensor', (golden) => {
    golden.expectOutput('Wq', midRise(golden.input('W'), golden.number('bits')));
  });
  const checkSymmetric = (
    golden: GoldenCase,
    rows: number,
    scalesOf: typeof maxScales | typeof leastSquaresScales,
  ) => {
    const w = golden.input('W');
    const bits = golden.number('bits');
    const scales = scalesOf(w, rows, bits);
    golden.expectOutput('scale', scales);
    golden.expectOutput('Wq', dequantize(quantize(w, scales, bits)));
  };
  forEachCase('quant_sym_per_channel', (golden) => {
    checkSymmetric(golden, shapeOf(golden).rows, maxScales);
  });
  forEachCase('quant_sym_per_channel_mse', (golden) => {
    checkSymmetric(golden, shapeOf(golden).rows, leastSquaresScales);
  });
  forEachCase('quant_sym_per_tensor', (golden) => checkSymmetric(golden, 1, maxScales));
  forEachCase('gptq_kronecker', (golden) => {
    const { w, rows } = shapeOf(golden);
    const bits = golden.number('bits');
    const hessian = { channels: golden.input('Hc'), taps: golden.input('T') };
    const scales = leastSquaresScales(w, rows, bits);
    const rounded = gptq(w, hessian, { bits, scales, damping: golden.number('damp') });
    golden.expectOutput('Wq', dequantize(rounded!));
  });
  forEachCase('cross_layer_equalise', (golden) => {
    const { v, view } = consumerOf(golden);
    const equalized = equalize(golden.input('W'), golden.input('b'), v, view);
    golden.expectOutput('scale', equalized.scales);
    golden.expectOutput('W_new', equalized.w);
    golden.expectOutput('b_new', equalized.b);
    golden.expectOutput('V_new', equalized.v);
  });
});

describe('Gaussian moments', () => {
  forEachCase('relu_gauss_moments', (golden) => {
    const s = golden.input('s');
    const moments = Array.from(golden.input('m'), (m, i) => reluMoments(m, s[i]));
    golden.expectOutput(
      'mean',
      moments.map(({ mean }) => mean),
    );
    golden.expectOutput(
      'var',
      moments.map(({ variance }) => variance),
    );
  });
  forEachCase('relu_gauss_cov', (golden) => {
    const [m1, s1, m2, s2, rho] = ['m1', 's1', 'm2', 's2', 'rho'].map(golden.input);
    const limit = 1 - golden.number('rho_clip');
    const covariances = m1.map((m, i) => {
      const clipped = Math.min(limit, Math.max(-limit, rho[i]));
      return s1[i] * s2[i] * reluCovariance(m / s1[i], m2[i] / s2[i], clipped);
    });
    golden.expectOutput('cov', covariances);
  });
  forEachCase('gauss_bn_relu_step', (golden) => {
    const { w, rows, rest } = shapeOf(golden);
    const [inputs, ...kernel] = rest;
    const filters = { weights: w, outputs: rows, inputs, kernel, groups: 1 };
    const input = { mean: new Float64Array(inputs), covariance: golden.input('Cin') };
    const step = gaussianStep(input, { filters, norm: normOf(golden) });
    golden.expectOutput('r', [step.r]);
    golden.expectOutput('U', step.preActivation.covariance);
    const { mean, covariance } = relu.moments(step.preActivation);
    golden.expectOutput('ey', mean);
    golden.expectOutput('Cy', covariance);
  });
});

test('every golden case is checked', () => {
  const ops = [
    ...['keep_topk_l1', 'keep_topk_l2', 'greedy_backward', 'udfc_prune', 'udfc_joint'],
    ...['udfc_quant_scalar', 'neuron_merging', 'gauss_reconstruct', 'quant_midrise_per_tensor'],
    ...['quant_sym_per_channel', 'quant_sym_per_channel_mse', 'quant_sym_per_tensor'],
    ...['gptq_kronecker', 'cross_layer_equalise', 'relu_gauss_moments', 'relu_gauss_cov'],
    'gauss_bn_relu_step',
  ];
  expect(goldenOps().filter((op) => !ops.includes(op))).toEqual([]);
});
