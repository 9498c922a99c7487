import { Command, Errors } from '@oclif/core';
import { ExitCode, ResectError } from '../errors.js';
import { printable, wrap } from '../report/text.js';

/** What all commands share: `--json`, and errors that say what to do. */
export abstract class BaseCommand extends Command {
  static override enableJsonFlag = true;

  /** Prints text that may hold names from files, line by line. */
  override log(message = ''): void {
    super.log(message.split('\n').map(printable).join('\n'));
  }

  protected override async catch(error: Error & { exitCode?: number }): Promise<never> {
    if (error instanceof ResectError) {
      if (this.jsonEnabled()) this.logJson({ error: errorJson(error) });
      else this.logToStderr(errorText(error));
      return this.exit(error.exitCode);
    }
    // What oclif itself throws: wrong flags and the like.
    if (error instanceof Errors.CLIError) {
      const code = error.oclif.exit ?? ExitCode.usage;
      const lines = error.message.split('\n').map((line) => line.trim());
      const message = lines.filter((line) => line && !line.startsWith('See more help')).join(' ');
      if (this.jsonEnabled()) this.logJson({ error: { message, exitCode: code } });
      else this.logToStderr(wrap(`Error: ${sentence(message)} See resect ${this.id} --help.`));
      return this.exit(code);
    }
    const report = `${error.stack ?? error}\n\nThis is a bug in resect. Please report it, with the lines above.`;
    if (this.jsonEnabled())
      this.logJson({ error: { message: error.message, exitCode: ExitCode.bug } });
    else this.logToStderr(report);
    return this.exit(ExitCode.bug);
  }
}

export const errorJson = ({
  message,
  exitCode,
  detail: { where, expected, got, hint },
}: ResectError) => ({
  message: sentence(message),
  exitCode,
  where,
  expected,
  got,
  hint,
});

/** An error as people read it: what, where, expected, got, and what to do. */
export function errorText({ message, detail }: ResectError): string {
  const { where, expected, got, hint } = detail;
  const line = (label: string, text?: string) =>
    text ? [wrap(printable(text), { first: `  ${label} `, rest: ' '.repeat(12) })] : [];
  return [
    wrap(printable(`Error: ${sentence(message)}`)),
    ...line('where:   ', where),
    ...line('expected:', expected),
    ...line('got:     ', got),
    ...(hint ? [wrap(printable(sentence(hint)), { first: '  ', rest: '  ' })] : []),
  ].join('\n');
}

function sentence(text: string): string {
  const capital = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.?!]$/.test(capital) ? capital : `${capital}.`;
}
