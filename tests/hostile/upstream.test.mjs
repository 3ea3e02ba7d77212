// Attacks by the inference server on the service: each generation of an attack ends as it must, and those of
// well-behaved requests, on the same connections, are complete and have their own text.
import assert from 'node:assert/strict';
import test from 'node:test';
import { residentKb, startRunnel } from '../e2e/processes.mjs';
import { ATTACKS, GOOD, startHostileServer, textOf } from './upstream_attacks.mjs';
import { SLACK, until } from './raw.mjs';

const TIMEOUT_MS = 1000 * SLACK;
const ROUNDS = 3;
const BETWEEN = 3;

async function generate(url, prompt) {
  const response = await fetch(`${url}/v1/completions`, {
    method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ model: 'm', prompt }),
  });
  const { choices, error } = await response.json();
  return error ? { code: error.code, message: error.message } : { text: choices[0].text, finish: choices[0].finish_reason };
}

async function check(url, name, { text, code }, serial) {
  const prompt = `${name}#${serial}`;
  const result = await generate(url, prompt);
  const what = `${prompt}: ${JSON.stringify(result)}`;
  if (!text) return result.code === code ? [] : [`${what}, not ${code}`];
  return result.text === textOf(prompt) && result.finish === 'stop' ? [] : [what];
}

test('attacks by the inference server', { timeout: 280_000 * SLACK }, async (t) => {
  const server = await startHostileServer();
  t.after(() => server.close());
  const timeouts = ['first_byte', 'first_token', 'next_token'].map((of) => `--upstream_${of}_timeout=${TIMEOUT_MS}ms`);
  const runnel = await startRunnel(
    { engine: ['--engine=upstream', `--upstream_url=http://${server.address}`, ...timeouts, '--upstream_idle_timeout=1s', '--retention_bytes=16777216'] });
  t.after(() => runnel.stop());
  const { url, inference } = runnel;
  let serial = 0;
  const good = () => check(url, GOOD, { text: true }, serial++);
  await Promise.all(Array.from({ length: 10 }, good));
  const before = residentKb(inference.child.pid);
  for (const [name, attack] of Object.entries(ATTACKS)) {
    await t.test(name, async () => {
      const faults = [];
      for (let round = 0; round < ROUNDS; round++) {
        const running = [check(url, name, attack, serial++), ...Array.from({ length: attack.alone ? 0 : BETWEEN }, good)];
        faults.push(...(await Promise.all(running)).flat());
        await server.stray;
        // One after another, so that it gets the connection of the attack if that was kept.
        faults.push(...await good());
      }
      assert.deepEqual(faults, []);
    });
  }
  assert.ok(!server.paths.includes('/redirected'), 'a redirect was followed');
  if (SLACK === 1) assert.ok(residentKb(inference.child.pid) - before < 100 << 10, `${residentKb(inference.child.pid) - before} KiB more`);
  await until(10_000, 'no connection', () => server.connections.size === 0);
  assert.equal(await runnel.metric(inference, 'runnel_upstream_streams_active'), 0);
  assert.equal(await runnel.metric(inference, 'runnel_upstream_idle_connections'), 0);
});
