import { allRows, type LayerCodes, type LayerWeights, type RowRange } from './codes.js';
import { gptqRows } from './gptq.js';
import type { Hessian } from './hessian.js';
import { makeQuantizer, type QuantizerName } from './quantizers.js';
import { type RefineOptions, refineRows } from './refine.js';
import { fitRows } from './rows.js';

/** How a layer is to be coded. All of it can be sent to a worker; shared memory is not copied. */
export interface CodingTask {
  layer: LayerWeights;
  quantizer: QuantizerName;
  /** 'fit' uses the Hessian's diagonal as importance, if there is one; the others need all of it. */
  method: 'fit' | 'gptq' | 'gptq-cd';
  hessian?: Hessian;
  /** From `factorHessian`, for 'gptq' and 'gptq-cd'. */
  factor?: Float64Array;
  refine?: RefineOptions;
  /** With 'gptq-cd': the codes are those of 'gptq' already. */
  started?: boolean;
}

/**
 * Codes rows [from, to) of a layer. Rows do not depend on each other, unless they share one scale: any
 * division of them gives the same codes.
 */
export function codeRows(
  { layer, quantizer: name, method, hessian, factor, refine, started }: CodingTask,
  codes: LayerCodes,
  range: RowRange = allRows(layer),
): void {
  const quantizer = makeQuantizer(name);
  if (method === 'fit') {
    fitRows(layer, codes, quantizer, hessian?.diagonal, range);
    return;
  }
  if (!hessian || !factor) throw new Error(`${method} needs a Hessian and its factor`);
  if (!started) {
    if (codes.shared) fitRows(layer, codes, quantizer, hessian.diagonal, range);
    gptqRows(layer, codes, quantizer, factor, range);
  }
  if (method === 'gptq-cd') refineRows(layer, codes, quantizer, hessian, refine, range);
}
