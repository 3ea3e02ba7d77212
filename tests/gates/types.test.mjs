// runnel.d.ts compiles, serves a program as users write it, and names what runnel.js has. TYPESCRIPT is where the
// compiler is installed.
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import test from 'node:test';
import { fileURLToPath } from 'node:url';
import * as runnel from '../../../../bridges/web/runnel.js';
import { readOptions } from '../../../../bridges/web/runnel/options.js';

const require = createRequire(import.meta.url);
const ts = require(process.env.TYPESCRIPT ?? '../../../e2e/browser/node_modules/typescript');
const CONFIG = fileURLToPath(new URL('tsconfig.json', import.meta.url));
// What the constructor takes and readOptions does not keep.
const OTHER_OPTIONS = ['sseUrl', 'signal'];
const RENAMED = { backoffBaseMs: 'baseMs', backoffCapMs: 'capMs' };

function compile() {
  const { config } = ts.readConfigFile(CONFIG, ts.sys.readFile);
  const { fileNames, options } = ts.parseJsonConfigFileContent(config, ts.sys, fileURLToPath(new URL('.', import.meta.url)));
  return ts.createProgram(fileNames, options);
}

const program = compile();
const checker = program.getTypeChecker();
const declarations = program.getSourceFiles().find(({ fileName }) => fileName.endsWith('/runnel.d.ts'));
const exported = new Map(checker.getExportsOfModule(checker.getSymbolAtLocation(declarations))
  .map((symbol) => [symbol.name, symbol]));
const membersOf = (name) => checker.getDeclaredTypeOfSymbol(exported.get(name)).getProperties()
  .map((symbol) => symbol.name).filter((member) => !member.startsWith('__@'));

test('types: compile', () => {
  const problems = ts.getPreEmitDiagnostics(program)
    .map(({ messageText }) => ts.flattenDiagnosticMessageText(messageText, '\n'));
  assert.deepEqual(problems, []);
});

test('types: every value of the module is declared, and none that it has not', () => {
  const values = [...exported.values()].filter(({ flags }) => flags & ts.SymbolFlags.Value).map(({ name }) => name);
  assert.deepEqual(values.sort(), Object.keys(runnel).sort());
});

test('types: every public member of the classes is declared', () => {
  for (const name of ['GenerationStream', 'SseParser', 'Transcript', 'RunnelError']) {
    const declared = new Set(membersOf(name));
    const own = Object.getOwnPropertyNames(runnel[name].prototype).filter((member) => member !== 'constructor');
    for (const member of own) assert.ok(declared.has(member), `${name}.${member} is not declared`);
  }
  const answer = runnel.attach('gen_x', { baseUrl: 'http://127.0.0.1:9' });
  answer.close();
  for (const member of membersOf('GenerationStream')) assert.ok(member in answer, `there is no ${member}`);
});

test('types: every option is declared, and none that is not read', () => {
  const read = Object.keys(readOptions({}));
  const declared = membersOf('StreamOptions').filter((name) => !OTHER_OPTIONS.includes(name))
    .map((name) => RENAMED[name] ?? name);
  assert.deepEqual(declared.sort(), read.sort());
});
