/**
 * resect as a library: read a model, find what may be edited, apply a method, measure, write.
 * The command line is made of these.
 */
export {
  type GradientModel,
  type GradientOptions,
  type GradientStep,
  gradients,
  type Reachable,
  type Target,
} from './autodiff/gradients.js';
export type { LossGraph } from './autodiff/loss-graph.js';
export type { LossName } from './autodiff/losses.js';
export { Adam, type AdamState, type Optimizer, Sgd } from './autodiff/optimizer.js';
export { NoGradientError } from './autodiff/reverse.js';
export { batchTarget } from './autodiff/targets.js';
export { type TrainingOptions, train } from './autodiff/trainer.js';
export { type Losses, runEpochs, type TrainingLoop } from './autodiff/training-loop.js';
export {
  type Batch,
  batches,
  type Dataset,
  type InputSpec,
  openDataset,
  sampleIndices,
  type Task,
  type TensorData,
} from './data/index.js';
export { ExitCode, ResectError } from './errors.js';
export { evaluateModels } from './evaluate/evaluate.js';
export { type Inspection, inspectModel } from './evaluate/inspect.js';
export { type Difference, diffModels } from './graph/diff.js';
export { inlineFunctions } from './graph/functions.js';
export { Graph, type Scope, type Value } from './graph/graph.js';
export { modelInputs, modelOutputs, type Port } from './graph/interface.js';
export { findLinearLayers, type LinearLayer } from './graph/linear-layers.js';
export { findParameters, type Parameter } from './graph/parameters.js';
export { removeDeadNodes, topologicalOrder } from './graph/topology.js';
export { maskEdit, readMatrix, replaceEdit, type WeightMatrix } from './graph/weight-matrix.js';
export type { LayerReport, Method, Surgery } from './methods/method.js';
export { methods } from './methods/registry.js';
export * from './onnx/index.js';
export { type EvaluationRequest, type EvaluationResult, evaluate } from './recipe/evaluation.js';
export { type OperationRequest, type OperationResult, operate } from './recipe/operation.js';
export { Session, withSession } from './runtime/session.js';
export { type Runnable, SessionThread } from './runtime/session-thread.js';
