// Tests deploy/local/install.sh with a fake apt-get that installs nothing, and with a separate /usr/sbin.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';

const INSTALL = new URL('../../deploy/local/install.sh', import.meta.url).pathname;
const INSIDE = ['--unshare-user', '--uid', '0', '--gid', '0', '--dev-bind', '/', '/'];
const CANNOT = spawnSync('bwrap', [...INSIDE, 'true']).status !== 0 && 'this kernel does not allow users to create namespaces';

/**
 * Runs install.sh as root of a machine without packages. `apt`: the commands of apt-get install; `policy`: the content
 * of policy-rc.d before. Returns its exit code, the calls, the content of policy-rc.d during the installation (with its
 * exit code for a service that starts) and after it; undefined if there was none.
 */
function install(t, args, { apt = 'exit 0', policy } = {}) {
  const folder = mkdtempSync(join(tmpdir(), 'runnel-install-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const [bin, sbin] = ['bin', 'sbin'].map((name) => join(folder, name));
  for (const each of [bin, sbin]) mkdirSync(each);
  const program = (name, text) => {
    writeFileSync(join(bin, name), `#!/bin/sh\n${text}\n`);
    chmodSync(join(bin, name), 0o755);
  };
  const read = (path) => {
    try {
      return readFileSync(join(folder, path), 'utf8');
    } catch {
      return undefined;
    }
  };
  if (policy !== undefined) writeFileSync(join(sbin, 'policy-rc.d'), policy, { mode: 0o755 });
  const note = `echo "$(basename "$0") $*" >>'${folder}/calls'`;
  program('dpkg-query', 'exit 1');
  program('systemctl', note);
  program('apt-get', `${note}; [ "$1" = install ] || exit 0; cp /usr/sbin/policy-rc.d '${folder}/during';
    /usr/sbin/policy-rc.d nginx start; echo $? >'${folder}/said'; ${apt}`);
  // Versions that install.sh accepts, so that it does not install them.
  for (const name of ['node', 'npm']) program(name, 'exit 0');
  program('go', 'echo go999.0');
  const { status } = spawnSync('bwrap', [...INSIDE, '--bind', sbin, '/usr/sbin', INSTALL, '--without-llama', ...args],
    { env: { ...process.env, PATH: `${bin}:/usr/bin:/bin`, RUNNEL_CACHE: join(folder, 'cache') } });
  const [calls, during, said, after] = ['calls', 'during', 'said', 'sbin/policy-rc.d'].map(read);
  return { status, calls, during, said: Number(said), after };
}

test('no service is started by an installation, nor at the next boot', { skip: CANNOT }, (t) => {
  const { status, calls, said, after } = install(t, ['--with-tests', '--with-bench']);
  assert.equal(status, 0);
  assert.match(calls, /^apt-get install .* haproxy/m);
  assert.equal(said, 101);
  assert.equal(after, undefined);
  assert.match(calls, /^systemctl disable .*nginx$/m);
  assert.match(calls, /^systemctl disable .*haproxy$/m);
  assert.match(calls, /^systemctl disable .*redis-server$/m);
  assert.match(calls, /^systemctl disable .*redis-sentinel$/m);
});

test('a shared log brings Redis, which is otherwise not installed and never started', { skip: CANNOT }, (t) => {
  const { calls, said } = install(t, ['--with-redis']);
  assert.match(calls, /^apt-get install .* redis-server$/m);
  assert.equal(said, 101);
  assert.match(calls, /^systemctl disable .*redis-server$/m);
  assert.doesNotMatch(install(t, []).calls, /redis-server/);
});

test('a failed installation leaves no policy behind that prevents services from starting', { skip: CANNOT }, (t) => {
  for (const apt of ['exit 100', 'kill -TERM $PPID']) {
    const { status, said, after } = install(t, ['--with-tests'], { apt });
    assert.notEqual(status, 0);
    assert.equal(said, 101, apt);
    assert.equal(after, undefined, apt);
  }
});

test("the administrator's policy stays, the policy of a killed run does not", { skip: CANNOT }, (t) => {
  const own = '#!/bin/sh\nexit 0\n';
  const kept = install(t, [], { policy: own });
  assert.deepEqual([kept.during, kept.after], [own, own]);
  const { during } = install(t, []);
  const mended = install(t, [], { policy: during });
  assert.deepEqual([mended.during, mended.after], [during, undefined]);
});
