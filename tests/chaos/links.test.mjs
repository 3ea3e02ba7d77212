// Links that go dark: the connection between bridge and service stays open but carries nothing more. The bridge notices
// by its keepalive and opens another Link; its readers continue where they were, on their existing connections.
import assert from 'node:assert/strict';
import test from 'node:test';
import { CheckedLog, Tally } from './checked_log.mjs';
import { startFleet } from './fleet.mjs';
import { readPoll } from './readers/poll.mjs';
import { readSse } from './readers/sse.mjs';
import { readWs } from './readers/ws.mjs';
import { Script } from './script.mjs';

const READERS = 20;
// Several times the time that the bridge needs to notice a dark Link and open another.
const idleMs = 60_000;
// A Link counts as lost after --link_keepalive and half of it.
const KEEPALIVE = '--link_keepalive=1s';
const LINK_FAULTS = [
  '--seed=7', '--faults=half_open', '--share=1', '--up_share=0', '--max_down_bytes=60000', '--linger=120s',
];

async function readOne(kind, bridge, index) {
  const script = new Script({ seed: index + 1, tokens: 150, pace: 50, firstTokenMs: 0, key: `dark-${kind}-${index}` });
  const log = new CheckedLog(script, new Tally());
  const on = log.connection(kind);
  const what = { script, after: 0, idleMs };
  // Each of these throws if its connection ends before the terminal event.
  const events = kind === 'ws' ? readWs(bridge.url, { ...what, format: 'json' })
    : kind === 'poll' ? readPoll(bridge.url, what) : readSse(bridge.url, { ...what, style: 'fetch' });
  for await (const event of events) log.apply(event, on);
  assert.deepEqual(log.tally.firstFaults, []);
  assert.ok(log.ended);
}

for (const kind of ['sse', 'ws', 'poll']) {
  test(`${kind}: ${READERS} readers over Links that go dark again and again`, async (t) => {
    const flags = { sse: [KEEPALIVE], ws: [KEEPALIVE] };
    const fleet = await startFleet({ bridges: 1, linkFaults: LINK_FAULTS, flags });
    let stopped = false;
    t.after(() => stopped || fleet.stop());
    const [bridge] = kind === 'ws' ? fleet.ws : fleet.sse;
    await Promise.all(Array.from({ length: READERS }, (_, index) => readOne(kind, bridge, index)));
    const losses = await fleet.metric(bridge, 'runnel_link_losses_total');
    t.diagnostic(`${losses} Links lost`);
    assert.ok(losses >= 1);
    const ready = await fetch(`http://${bridge.admin}/readyz`);
    assert.equal(ready.status, 200, await ready.text());
    stopped = true;
    const { links } = await fleet.stop();
    assert.ok(links.half_open >= 1, JSON.stringify(links));
  });
}
