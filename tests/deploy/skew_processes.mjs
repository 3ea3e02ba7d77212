// The programs of two releases: this one, from RUNNEL_BIN, and the previous one, built by build_skew.sh.
import { existsSync, mkdtempSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Process, freePorts } from '../e2e/processes.mjs';

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const base = readFileSync(here('skew_base'), 'utf8').trim();
const oldTree = here(`../../build/skew/${base.slice(0, 12)}`);

export const RELEASES = {
  old: { bin: join(oldTree, 'build/release/bin'), library: join(oldTree, 'bridges/web/runnel.js') },
  new: { bin: process.env.RUNNEL_BIN, library: here('../../bridges/web/runnel.js') },
};

/** Why the previous release is missing, or undefined if it is there. */
export const missing = existsSync(join(oldTree, 'complete')) ? undefined
  : `the previous release (commit ${base}) is not in build/skew: run tests/deploy/build_skew.sh`;

const logs = mkdtempSync(join(tmpdir(), 'runnel-skew-'));
const started = [];
process.on('exit', () => {
  for (const each of started) each.child?.kill('SIGKILL');
});

async function start(release, program, flags, more = {}) {
  const [listen, admin] = (await freePorts(2)).map((port) => `127.0.0.1:${port}`);
  const address = more.address ?? listen;
  const made = new Process(join(RELEASES[release].bin, program),
    [`--listen=${address}`, `--admin_listen=${admin}`, ...flags], admin, join(logs, `${release}-${program}-${admin.split(':')[1]}.log`));
  Object.assign(made, { address, release, name: `${release} ${program} ${address}` });
  started.push(made);
  await made.start();
  return made;
}

export const startService = (release, flags = [], more = {}) =>
  start(release, 'runnel-inference', ['--engine=scripted', ...flags], more);

/** `kind`: sse or ws; `services`: the addresses of its replicas. */
export async function startBridge(release, kind, services, flags = []) {
  const origins = kind === 'ws' ? ['--allowed_origins=*'] : [];
  const bridge = await start(release, `runnel-${kind}`, [`--inference=${services}`, ...origins, ...flags]);
  return Object.assign(bridge, { kind, url: kind === 'sse' ? `http://${bridge.address}` : `ws://${bridge.address}/v1/ws` });
}
