import { createReadStream } from 'node:fs';
import { createGzip } from 'node:zlib';

/** Bytes of files after gzip, all in one stream, as they would travel. */
export async function gzippedBytes(files: readonly string[]): Promise<number> {
  let total = 0;
  for (const file of files) {
    const stream = createReadStream(file, { highWaterMark: 1 << 20 }).pipe(
      createGzip({ level: 6, chunkSize: 1 << 18 }),
    );
    for await (const chunk of stream) total += chunk.length;
  }
  return total;
}
