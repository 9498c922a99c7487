import { inRepository } from './cli.js';

/** The trained models that come with the project, and data cards for them. */
export const resnet8 = {
  model: inRepository('fixtures/resnet8/resnet8.onnx'),
  train: inRepository('fixtures/resnet8/train.yaml'),
  test: inRepository('fixtures/resnet8/test.yaml'),
};

export const gptMoby = {
  model: inRepository('fixtures/gpt-moby/gpt-moby.onnx'),
  calib: inRepository('fixtures/gpt-moby/calib.yaml'),
  heldout: inRepository('fixtures/gpt-moby/heldout.yaml'),
};

export const mlpRegression = {
  model: inRepository('fixtures/mlp-regression/mlp-regression.onnx'),
  test: inRepository('fixtures/mlp-regression/test.yaml'),
};
