import { mainGraph, Names } from '../../graph/bodies.js';
import { makeNode } from '../../graph/build.js';
import { Graph } from '../../graph/graph.js';
import { findLinearLayers } from '../../graph/linear-layers.js';
import { replaceEdit } from '../../graph/weight-matrix.js';
import { type Model, type ModelProto, makeTensor, type TensorProto } from '../../onnx/index.js';
import type { Target } from '../calibration/targets.js';
import { decodeRow, type LayerCodes } from './maths/codes.js';
import type { PlannedLayer } from './plan.js';

/**
 * A variant of a model that calibration data runs through, in which each planned layer has a bias of
 * its own behind it: codes and biases can be tried without packing them. It shares the model's tensors.
 */
export class Study {
  readonly proto: ModelProto;
  readonly graph: Graph;
  /** The planned layers, as they are found in the variant. */
  readonly planned: PlannedLayer[];
  readonly #biases = new Map<PlannedLayer, TensorProto>();
  readonly #tried = new Set<Target<PlannedLayer>>();

  /** @param graph of the model, of opset 13 or more, that `planned` was found in */
  constructor(
    readonly model: Model,
    graph: Graph,
    planned: readonly PlannedLayer[],
  ) {
    const source = mainGraph(graph.model);
    const names = new Names(source);
    const biases = new Map<number, TensorProto>();
    const indexOf = new Map(
      planned.flatMap(({ layer, report }, i) =>
        report.status === 'skipped' ? [] : [[layer.node, i] as const],
      ),
    );
    const node = source.node.flatMap((own) => {
      const i = indexOf.get(own);
      const { weight, layout } = i === undefined ? {} : planned[i].layer;
      if (i === undefined || !weight) return [own];
      const [output] = own.output;
      const product = names.fresh(`${output}_product`);
      const spatial = layout?.kind === 'patches' ? layout.kernel.map(() => 1) : [];
      const bias = makeTensor({
        name: names.fresh(`${output}_bias`),
        dtype: 'float32',
        shape: [weight.rows, ...spatial],
        bytes: new Uint8Array(4 * weight.rows),
      });
      biases.set(i, bias);
      return [
        { ...own, output: [product, ...own.output.slice(1)] },
        makeNode('Add', [product, bias.name ?? ''], output),
      ];
    });
    const initializer = [...source.initializer, ...biases.values()];
    this.proto = { ...graph.model, graph: { ...source, node, initializer } };
    this.graph = new Graph(this.proto);
    // Additions are no layers: the others keep their order.
    this.planned = findLinearLayers(this.graph).map((layer, i) => {
      const entry = { layer, report: planned[i].report };
      const bias = biases.get(i);
      if (bias) this.#biases.set(entry, bias);
      return entry;
    });
  }

  /** Puts codes and biases in place of a target's. */
  async try(
    target: Target<PlannedLayer>,
    codes: LayerCodes,
    biases: ReadonlyMap<string, Float32Array>,
  ): Promise<void> {
    const values = new Float32Array(codes.rows * codes.cols);
    for (let row = 0; row < codes.rows; row++) decodeRow(codes, row, values, row * codes.cols);
    this.model.edits.set(target.tensor, await replaceEdit(this.model, target.weight, values));
    for (const entry of target.planned) {
      const bias = this.#biases.get(entry);
      const values = biases.get(entry.report.name);
      if (bias && values)
        bias.rawData = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
    }
    this.#tried.add(target);
  }

  /** Takes back what was tried, and frees it. */
  reset(): void {
    for (const { tensor } of this.#tried) this.model.edits.delete(tensor);
    this.#tried.clear();
  }
}
