// RFC 6455 with the real bridge: each case is a separate connection to runnel-ws.
import assert from 'node:assert/strict';
import test from 'node:test';
import { startRunnel } from './processes.mjs';
import { BINARY, TEXT, closeFrame, converse, frame } from './ws_frames.mjs';
import { PROTO, SECTIONS, ping, protoPing } from './ws_rfc6455_cases.mjs';

const AT_ONCE = 16;

const short = (list) => (list.length > 8 ? [...list.slice(0, 4), `(${list.length})`, ...list.slice(-4)] : list);

function same(seen, expected) {
  return seen.length === expected.length
    && expected.every((each, i) => (Array.isArray(each) ? each.includes(seen[i]) : each === seen[i]));
}

/** Runs a case; resolves with undefined if the result is the expected one. */
async function faultOf(url, { name, protocol = 'runnel.v1', send, expect }) {
  const closes = [expect.at(-1)].flat().some((each) => each?.startsWith('close '));
  const proof = protocol === PROTO ? frame(BINARY, protoPing(77)) : frame(TEXT, ping(77));
  const chunks = closes ? send : [...send, proof, closeFrame(1000)];
  const expected = [...expect, ...(closes ? [] : ['pong 77', 'close 1000']), 'end'];
  const seen = await converse(url, protocol, chunks).catch((error) => [String(error)]);
  return same(seen, expected) ? undefined : `${name}: ${JSON.stringify(short(seen))}, not ${JSON.stringify(short(expected))}`;
}

test('RFC 6455', async (t) => {
  const runnel = await startRunnel();
  t.after(() => runnel.stop());
  let count = 0;
  for (const [section, cases] of Object.entries(SECTIONS)) {
    await t.test(section, async (section) => {
      const faults = [];
      const left = cases.values();
      await Promise.all(Array.from({ length: AT_ONCE }, async () => {
        for (const each of left) {
          const fault = await faultOf(runnel.wsUrl, each);
          if (fault) faults.push(fault);
        }
      }));
      count += cases.length;
      section.diagnostic(`${cases.length} cases`);
      assert.deepEqual(faults, []);
    });
  }
  assert.ok(count >= 500, `only ${count} cases`);
  assert.equal(await runnel.metric(runnel.ws, 'runnel_connection_exceptions_total'), 0);
  console.log(`ws_rfc6455: ${count} cases`);
});
