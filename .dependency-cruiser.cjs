/** Arrows point one way: commands -> cli -> recipe, report -> methods, evaluate -> autodiff, runtime, data -> graph -> onnx. */
const layers = [
  ['onnx'],
  ['graph'],
  ['autodiff', 'runtime', 'data'],
  ['methods', 'evaluate'],
  ['recipe', 'report'],
  ['cli'],
];
const folders = (group) => `^src/(${group.join('|')})/`;

module.exports = {
  forbidden: [
    {
      name: 'no-circular',
      severity: 'error',
      from: {},
      to: { circular: true, viaOnly: { dependencyTypesNot: ['type-only'] } },
    },
    {
      name: 'commands-are-on-top',
      severity: 'error',
      from: { path: '^src/' },
      to: { path: '^(commands|bin)/' },
    },
    ...layers.slice(0, -1).map((group, i) => ({
      name: `${group.join('-')}-knows-nothing-above`,
      severity: 'error',
      from: { path: folders(group) },
      to: { path: folders(layers.slice(i + 1).flat()) },
    })),
  ],
  options: {
    doNotFollow: { path: 'node_modules' },
    tsPreCompilationDeps: true,
    tsConfig: { fileName: 'tsconfig.json' },
  },
};
