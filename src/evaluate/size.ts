import { createReadStream } from 'node:fs';
import { pipeline } from 'node:stream';
import { createGzip } from 'node:zlib';

/** Bytes of files after gzip, each by itself. */
export async function gzippedBytes(files: readonly string[]): Promise<number> {
  let total = 0;
  for (const file of files) {
    const source = createReadStream(file, { highWaterMark: 1 << 20 });
    // Errors of the file reach the loop through the stream that it reads.
    const packed = pipeline(source, createGzip({ level: 6, chunkSize: 1 << 18 }), () => {});
    for await (const chunk of packed) total += chunk.length;
  }
  return total;
}
