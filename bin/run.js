#!/usr/bin/env node
import { execute } from '@oclif/core';

// Without this, oclif warns of commands that end before they have read their arguments.
process.env.NODE_ENV ??= 'production';

process.on('uncaughtException', (error) => {
  // Standard output on a full disk; a closed pipe is no error, and oclif's affair.
  const lost = error.syscall === 'write';
  process.stderr.write(
    lost ? `Error: The output cannot be written: ${error.message}\n` : `${error.stack}\n`,
  );
  process.exit(lost ? 7 : 1);
});

await execute({ dir: import.meta.url });
