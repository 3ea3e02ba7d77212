// The files in bridges/web/vendor equal those of the npm packages that are named there.
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';

const VENDOR = join(import.meta.dirname, '../../bridges/web/vendor');
const lock = JSON.parse(readFileSync(join(import.meta.dirname, 'package-lock.json'), 'utf8'));
const manifests = readdirSync(VENDOR).filter((name) => name.endsWith('.json'));

test('vendor: every file belongs to a package', () => {
  const expected = manifests.flatMap((name) => ['.json', '.js', '.LICENSE.txt'].map((end) => name.replace('.json', end)));
  assert.deepEqual(readdirSync(VENDOR).sort(), expected.sort());
});

for (const manifest of manifests) {
  test(`vendor: ${manifest} matches the npm package`, () => {
    const { name, version, integrity, license, file } = JSON.parse(readFileSync(join(VENDOR, manifest), 'utf8'));
    const locked = lock.packages[`node_modules/${name}`];
    assert.deepEqual({ version, integrity, license }, {
      version: locked.version, integrity: locked.integrity, license: locked.license,
    });
    // npm checks the digest of the archive when it installs the package.
    const installed = (path) => readFileSync(join(import.meta.dirname, 'node_modules', name, path), 'utf8');
    assert.equal(readFileSync(join(VENDOR, manifest.replace('.json', '.js')), 'utf8'), installed(file));
    assert.equal(readFileSync(join(VENDOR, manifest.replace('.json', '.LICENSE.txt')), 'utf8'), installed('LICENSE'));
  });
}
