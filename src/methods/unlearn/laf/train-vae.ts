import { gradients } from '../../../autodiff/gradients.js';
import { Adam } from '../../../autodiff/optimizer.js';
import { type Losses, refuseDivergence, runEpochs } from '../../../autodiff/training-loop.js';
import { normal, shuffled, uniformFor } from '../../../data/index.js';
import { asTensor, countOf, drawRows, pick, type Rows } from './rows.js';
import {
  initialWeights,
  type VaeSizes,
  type VaeWeights,
  vaeInputs,
  vaeLoss,
  vaeModel,
} from './vae.js';

export interface VaeTraining {
  epochs: number;
  rate: number;
  batchSize: number;
  seed: number;
  /** Tells its random numbers from those of another autoencoder. */
  name: string;
  progress: (done: number, total: number, losses: Losses) => void;
}

/**
 * Trains an autoencoder on representations, from new.
 * @returns its weights, and the mean loss of each epoch
 * @throws {ResectError} exit 5 when it diverges
 */
export async function trainVae(
  representations: Rows,
  sizes: VaeSizes,
  { epochs, rate, batchSize, seed, name, progress }: VaeTraining,
): Promise<{ weights: VaeWeights; losses: number[] }> {
  const random = uniformFor(seed, `laf autoencoder ${name}`);
  const gauss = normal(random);
  const { model, outputs } = vaeModel(sizes, initialWeights(sizes, random));
  const vae = await gradients(model, { loss: vaeLoss(outputs) });
  const optimizer = new Adam({ learningRate: rate });
  const latent = sizes[sizes.length - 1];
  const all = Array.from({ length: countOf(representations) }, (_, i) => i);
  const total = epochs * Math.ceil(all.length / batchSize);
  const losses: number[] = [];
  try {
    await runEpochs({
      epochs,
      async *batches() {
        const order = shuffled(all, random);
        for (let at = 0; at < order.length; at += batchSize)
          yield pick(representations, order.slice(at, at + batchSize));
      },
      async step(rows) {
        const noise = drawRows(countOf(rows), latent, gauss);
        const { loss, gradients: g } = await vae.run({
          [vaeInputs.e]: asTensor(rows),
          [vaeInputs.noise]: asTensor(noise),
        });
        optimizer.step(vae.values, g);
        return { loss };
      },
      afterStep: (step, means) => {
        refuseDivergence(
          means,
          `at step ${step} of the autoencoder`,
          'Choose a smaller --vae-rate.',
        );
        progress(step, total, means);
        return false;
      },
      afterEpoch: async (_, { loss }) => {
        losses.push(loss);
        return false;
      },
    });
    return { weights: vae.values, losses };
  } finally {
    await vae.release();
  }
}
