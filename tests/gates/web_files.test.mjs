// The list of web files in CMake is complete: every file that a browser loads is served, and every listed file exists.
import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join, posix } from 'node:path';
import test from 'node:test';
import ts from 'typescript';

const ROOT = join(import.meta.dirname, '../..');
const WEB = join(ROOT, 'bridges/web');
const LIST = 'bridges/sse/http/CMakeLists.txt';
// Files that a browser loads.
const SERVED = /\.(?:html|css|js|mjs|svg|ico|woff2|webmanifest)$/;
// Answered by a route of the bridge.
const ROUTES = new Set(['/config.json']);

const [, list] = /set\(web_files\s([^)]*)\)/.exec(readFileSync(join(ROOT, LIST), 'utf8'));
const listed = list.trim().split(/\s+/);
const read = (file) => readFileSync(join(WEB, file), 'utf8');

/** Addresses that a file loads: imports, and the links of HTML and CSS. */
function addressesIn(file) {
  const text = read(file);
  if (file.endsWith('.js')) return ts.preProcessFile(text, true, true).importedFiles.map(({ fileName }) => fileName);
  if (file.endsWith('.html')) return [...text.matchAll(/\b(?:src|href)="([^"]*)"/g)].map(([, address]) => address);
  return [...text.matchAll(/(?:url\(|@import )\s*['"]?([^'")\s]+)/g)].map(([, address]) => address);
}

test('web files: each one is listed once and exists', () => {
  assert.equal(new Set(listed).size, listed.length);
  for (const file of listed) assert.ok(existsSync(join(WEB, file)), `${LIST} lists ${file}, which does not exist`);
});

test('web files: all that a browser can load are listed', () => {
  const files = readdirSync(WEB, { recursive: true }).map((name) => name.replaceAll('\\', '/'));
  const missing = files.filter((name) => SERVED.test(name) && !listed.includes(name));
  assert.deepEqual(missing, [], `missing in ${LIST}`);
});

test('web files: every import and link leads to a listed file', () => {
  let addresses = 0;
  for (const file of listed.filter((name) => SERVED.test(name) && !name.startsWith('vendor/'))) {
    for (const address of addressesIn(file)) {
      addresses++;
      if (ROUTES.has(address)) continue;
      const target = posix.resolve('/', posix.dirname(file), address).slice(1);
      assert.ok(/^\.{0,2}\//.test(address), `${file} loads ${address}, which is not a path`);
      assert.ok(listed.includes(target), `${file} loads ${address}, which ${LIST} does not list`);
    }
  }
  assert.ok(addresses > 50, `only ${addresses} imports and links were found`);
});
