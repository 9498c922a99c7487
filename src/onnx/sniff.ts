/** How files begin that are often taken for ONNX models: offset, bytes (latin-1), what it is, what to do. */
const FORMATS: [offset: number, magic: string, name: string, hint: string][] = [
  [0, '\x89PNG', 'a PNG image', 'Give the model file.'],
  [0, '\xff\xd8\xff', 'a JPEG image', 'Give the model file.'],
  [
    0,
    'PK\x03\x04',
    'a ZIP archive, perhaps a PyTorch checkpoint or an .npz',
    'Export it with torch.onnx.export, or unpack it.',
  ],
  [0, '\x80\x02', 'a Python pickle', 'Export the model with torch.onnx.export.'],
  [0, '\x80\x03', 'a Python pickle', 'Export the model with torch.onnx.export.'],
  [0, '\x80\x04', 'a Python pickle', 'Export the model with torch.onnx.export.'],
  [0, '\x80\x05', 'a Python pickle', 'Export the model with torch.onnx.export.'],
  [0, '\x1f\x8b', 'a gzip archive', 'Unpack it with gunzip.'],
  [0, '\x93NUMPY', 'a NumPy array', 'Give the model file.'],
  [0, '\x89HDF', 'an HDF5 file, perhaps a Keras model', 'Convert it with tf2onnx.'],
  [0, 'GGUF', 'a GGUF model', 'Export the original model to ONNX.'],
  [4, 'TFL3', 'a TensorFlow Lite model', 'Convert it with tf2onnx.'],
  [4, 'ORTM', 'an ONNX Runtime format model (.ort)', 'Use the .onnx file that it was made from.'],
  [0, 'version https://git-lfs', 'a Git LFS pointer, not the model itself', 'Run git lfs pull.'],
  [0, '<', 'an HTML or XML page', 'Download the file itself, not the page about it.'],
  [8, '{"', 'a safetensors file', 'Export the model with optimum-cli export onnx.'],
  [0, '{', 'a JSON file', 'Give the model file.'],
];

/** What a file that is no ONNX model seems to be, from its first bytes. */
export function sniffFormat(bytes: Uint8Array): { name: string; hint: string } | undefined {
  const head = String.fromCharCode(...bytes.subarray(0, 64));
  const found = FORMATS.find(([offset, magic]) => head.startsWith(magic, offset));
  return found && { name: found[2], hint: found[3] };
}
