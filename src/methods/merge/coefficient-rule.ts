/** How a share of interpolation follows from the scores of two models. */
export type CoefficientRule = {
  /** Softmax temperatures. */
  temperature: { generalist: number; expert: number };
} & (
  | {
      /** T3: from the Jensen-Shannon divergence, in nats. */
      kind: 'disagreement';
      form: 'literal' | 'centred' | 'calibrated';
      gamma: number;
      lmin: number;
      lmax: number;
      /** Of the calibrated form: the divergence at which λ is half way. */
      tau: number;
      kappa: number;
      /** Which model λ weights. */
      lambdaOn: 'generalist' | 'expert';
    }
  | {
      /** DaWin: from the two entropies. */
      kind: 'entropy';
      offset?: { offset: number; weight: number };
    }
);

/** Whether the weights may leave the range between the models. */
export const extrapolates = (rule: CoefficientRule): boolean =>
  rule.kind === 'disagreement' && (rule.lmin < 0 || rule.lmax > 1);
