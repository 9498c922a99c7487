// The image classifiers of the project, how each is measured, and one run of `compress` on them.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { methods, operate } from '../../dist/src/index.js';

const fixture = (name) => fileURLToPath(new URL(`../../fixtures/${name}`, import.meta.url));

const cards = {
  eval: fixture('resnet8/test.yaml'),
  calib: fixture('resnet8/train.yaml'),
};

/** The data of fixture `resnet8` for a model whose input is called `input`; cards go to `folder`. */
function cardsOf(folder, input) {
  const card = (name) => {
    const path = join(folder, `${name}.yaml`);
    const image = { array: 'image', scale: 1 / 255, mean: [0.286], std: [0.353] };
    const file = fixture(`resnet8/${name}.npz`);
    const inputs = { [input]: image };
    writeFileSync(path, JSON.stringify({ file, task: 'classification', inputs, labels: 'label' }));
    return path;
  };
  return { eval: card('test'), calib: card('train') };
}

export const models = (folder) => ({
  netA: { file: fixture('golden/udfc/netA.onnx'), ...cardsOf(folder, 'input') },
  resnet8: { file: fixture('resnet8/resnet8.onnx'), ...cards },
  folded: { file: fixture('resnet8/resnet8-folded.onnx'), ...cards },
  vgg7: { file: fixture('vgg7/vgg7.onnx'), ...cards },
  mobile7: { file: fixture('mobile7/mobile7.onnx'), ...cards },
});

/**
 * Writes OUTPUT and measures it on the test images.
 * @param samples unlabelled images to calibrate on; 0 for none
 */
export const compressed = (model, { parameters, output, samples = 0 }) =>
  operate({
    method: methods.compress,
    parameters,
    model: model.file,
    output,
    force: true,
    ...(samples > 0 && { calib: model.calib, samples }),
    eval: model.eval,
    threads: 1,
  });
