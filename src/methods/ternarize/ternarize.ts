import { modelError } from '../../errors.js';
import { Graph } from '../../graph/graph.js';
import { nameLayers } from '../../graph/weight-layers.js';
import { type Model, tensorInfo } from '../../onnx/index.js';
import { foldBatchNorm } from '../compress/formats/fold-batch-norm.js';
import type { Context, Surgery } from '../method.js';
import { requireOpset } from '../opset.js';
import { codeModel } from './code-model.js';
import type { Outcome } from './code-target.js';
import type { TernarizeLayer } from './layers.js';
import { refuseSearch, searchLevels } from './mixed.js';
import { kernelNotes, notesOn } from './notes.js';
import type { Settings, TernarizeParameters } from './parameters.js';
import { nothingToDo, type PlannedLayer, planLayers } from './plan.js';
import { storeCodes } from './store.js';

/** Packs the weights of `model`, in memory. See `Method.apply`. */
export async function ternarizeModel(
  model: Model,
  { mixed }: TernarizeParameters,
  settings: Settings,
  context: Context,
): Promise<Surgery<TernarizeLayer>> {
  if (mixed) refuseSearch(context);
  const select = () => {
    const graph = new Graph(model.proto);
    return { graph, planned: planLayers(graph, settings, context.selects) };
  };
  // What is done to the graph from here on must not change what layers are called.
  nameLayers(model);
  requireOpset(model, 13);
  const names = new Set(changing(select().planned));
  if (names.size === 0) throw nothingToDo(select().planned.map(({ report }) => report));
  await foldBatchNorm(model, ({ name }) => names.has(name));
  const { graph, planned } = select();

  const search = mixed ? await searchLevels(model, graph, planned, settings, context) : undefined;
  const outcomes = search?.outcomes ?? (await codeModel(model, graph, planned, settings, context));
  for (const { report } of planned) describe(report, outcomes.get(report.name));
  const layers = planned.map(({ report }) => report);
  if (!layers.some(({ status }) => status === 'changed')) {
    throw modelError('No layer can be packed within what it may lose.', {
      got: [...new Set(layers.flatMap(({ reason }) => reason ?? []))].join('; '),
      hint: 'Give more calibration data, try --levels 4, or raise --max-layer-error.',
    });
  }
  const stored = await storeCodes(model, outcomes, settings, context);
  const byName = new Map(stored.map((s) => [s.name, s]));
  for (const { layer, report } of planned) {
    const weight = byName.get(report.name);
    if (report.status !== 'changed' || !weight || !layer.weight) continue;
    const { elements } = tensorInfo(layer.weight.view.tensor);
    const { bytes = 4 * elements, kernel } = weight;
    // Of a shared weight the layer that comes first has all bytes.
    const before = bytes > 0 ? 4 * elements : 0;
    Object.assign(report, {
      bytes: { before, after: bytes },
      ...(bytes > 0 && { bitsPerWeight: (8 * bytes) / elements }),
      kernel,
    });
  }
  return {
    layers,
    changedTensors: (model.proto.graph?.initializer ?? []).map(({ name = '' }) => name),
    notes: [
      ...(search ? [search.note] : []),
      ...notesOn(settings, layers, stored, context),
      ...(await kernelNotes(model, stored)),
    ],
  };
}

const changing = (planned: readonly PlannedLayer[]): string[] =>
  planned.flatMap(({ report }) => (report.status === 'skipped' ? [] : [report.name]));

/** Adds what became of a layer to its report. */
function describe(report: TernarizeLayer, outcome: Outcome | undefined): void {
  if (report.status === 'skipped') return;
  if (outcome) Object.assign(report, outcome.report);
  else
    Object.assign(report, {
      status: 'unchanged',
      levels: undefined,
      reason: 'left as it is by --mixed auto',
    });
}
