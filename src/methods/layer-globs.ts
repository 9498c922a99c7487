import picomatch from 'picomatch';

/** Whether a layer's name matches one of the globs. Slashes and brackets in names are no path: `*` crosses them. */
export function layerMatcher(globs: readonly string[]): (name: string) => boolean {
  const tests = globs.map((glob) => picomatch(glob, { bash: true, dot: true }));
  return (name) => tests.some((test) => test(name) || test(name.replace(/^\//, '')));
}

/**
 * The value for a layer, by rules GLOB=NUMBER of which the last that matches counts.
 * @returns undefined where none does
 */
export function layerRule(rules: readonly string[]): (name: string) => number | undefined {
  const parsed = rules.map((rule) => {
    const at = rule.lastIndexOf('=');
    return { matches: layerMatcher([rule.slice(0, at)]), value: Number(rule.slice(at + 1)) };
  });
  return (name) => parsed.findLast(({ matches }) => matches(name))?.value;
}
