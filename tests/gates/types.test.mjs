// runnel.d.ts compiles, serves a program as users write it, and agrees with runnel.js.
import assert from 'node:assert/strict';
import { dirname, join, relative } from 'node:path';
import test from 'node:test';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';
import * as runnel from '../../bridges/web/runnel.js';
import { readOptions } from '../../bridges/web/runnel/options.js';

const HERE = dirname(fileURLToPath(import.meta.url));
const WEB = join(HERE, '../../bridges/web');
// Options that the constructor reads itself.
const OTHER_OPTIONS = ['sseUrl', 'signal'];
const RENAMED = { backoffBaseMs: 'baseMs', backoffCapMs: 'capMs' };

const configFile = ts.readConfigFile(join(HERE, 'tsconfig.json'), ts.sys.readFile);
const config = ts.parseJsonConfigFileContent(configFile.config, ts.sys, HERE);

/** Lines `file(line): message` of all errors in a program. */
const problemsOf = (program) => ts.getPreEmitDiagnostics(program).map(({ file, start, messageText }) => {
  const text = ts.flattenDiagnosticMessageText(messageText, '\n');
  return file ? `${relative(HERE, file.fileName)}(${file.getLineAndCharacterOfPosition(start).line + 1}): ${text}` : text;
});

/** The JavaScript of the library, with types from JSDoc and inference. */
const library = ts.createProgram([join(WEB, 'runnel.js')], {
  ...config.options, allowJs: true, checkJs: true, noImplicitAny: false, useUnknownInCatchVariables: false,
  noEmit: false, declaration: true, emitDeclarationOnly: true, outDir: join(HERE, 'code'), rootDir: WEB,
});

/** Declarations that TypeScript derives from the library, by path below code/. They are never written to a disk. */
function derive() {
  const files = new Map();
  library.emit(undefined, (path, text) => files.set(path, text.replaceAll(/import\("\.\.?\/runnel\.js"\)/g,
    `import("${join(WEB, 'runnel.js')}")`)));
  return files;
}

function compile() {
  const derived = derive();
  const host = ts.createCompilerHost(config.options);
  const { fileExists, readFile, getSourceFile } = host;
  host.fileExists = (path) => derived.has(path) || fileExists(path);
  host.directoryExists = undefined;
  host.readFile = (path) => derived.get(path) ?? readFile(path);
  host.getSourceFile = (path, ...more) => (derived.has(path)
    ? ts.createSourceFile(path, derived.get(path), ...more) : getSourceFile(path, ...more));
  return ts.createProgram(config.fileNames, config.options, host);
}

const program = compile();
const checker = program.getTypeChecker();
const declarations = program.getSourceFiles().find(({ fileName }) => fileName === join(WEB, 'runnel.d.ts'));
const exported = new Map(checker.getExportsOfModule(checker.getSymbolAtLocation(declarations))
  .map((symbol) => [symbol.name, symbol]));
const membersOf = (name) => checker.getDeclaredTypeOfSymbol(exported.get(name)).getProperties()
  .map((symbol) => symbol.name).filter((member) => !member.startsWith('__@'));

test('types: the library is free of type errors', () => {
  assert.deepEqual(problemsOf(library), []);
});

test('types: the declarations compile, and agree with the code', () => {
  assert.deepEqual(problemsOf(program), []);
});

test('types: every value of the module is declared, and no other', () => {
  const values = [...exported.values()].filter(({ flags }) => flags & ts.SymbolFlags.Value).map(({ name }) => name);
  assert.deepEqual(values.sort(), Object.keys(runnel).sort());
});

test('types: every public member of the classes is declared', () => {
  for (const name of ['GenerationStream', 'SseParser', 'Transcript', 'RunnelError']) {
    const declared = new Set(membersOf(name));
    const own = Object.getOwnPropertyNames(runnel[name].prototype).filter((member) => member !== 'constructor');
    for (const member of own) assert.ok(declared.has(member), `${name}.${member} is not declared`);
  }
  const response = runnel.attach('gen_x', { baseUrl: 'http://127.0.0.1:9' });
  response.close();
  for (const member of membersOf('GenerationStream')) assert.ok(member in response, `there is no ${member}`);
});

test('types: every option that is read is declared, and no other', () => {
  const read = Object.keys(readOptions({}));
  const declared = membersOf('StreamOptions').filter((name) => !OTHER_OPTIONS.includes(name))
    .map((name) => RENAMED[name] ?? name);
  assert.deepEqual(declared.sort(), read.sort());
});
