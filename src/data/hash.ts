import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { pipeline } from 'node:stream/promises';
import { ioError } from '../errors.js';
import { statFile } from './bytes.js';

/**
 * SHA-256 in hex of what the files hold, streamed: of one file its own, as `sha256sum` prints it; of several
 * the one of their digests, in the given order, each with a line end.
 */
export async function hashFiles(files: string[]): Promise<string> {
  const digests: string[] = [];
  for (const file of files) {
    await statFile(file);
    const hash = createHash('sha256');
    await pipeline(createReadStream(file), hash).catch((cause) => {
      throw ioError(`cannot be read (${cause.code})`, { where: file, cause });
    });
    digests.push(hash.digest('hex'));
  }
  if (digests.length === 1) return digests[0];
  return createHash('sha256')
    .update(digests.map((digest) => `${digest}\n`).join(''))
    .digest('hex');
}
