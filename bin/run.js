#!/usr/bin/env node
import { execute } from '@oclif/core';

// Without this, oclif warns of commands that end before they have read their arguments.
process.env.NODE_ENV ??= 'production';

process.stdout.on('error', (error) => {
  // A closed pipe is the reader's choice; anything else is lost output.
  if (error.code === 'EPIPE') process.exit(0);
  process.stderr.write(`Error: The output cannot be written: ${error.message}\n`);
  process.exit(7);
});

await execute({ dir: import.meta.url });
