// The timeline of a reader: scale, layout and summary. The canvas is for the browser's tests.
import assert from 'node:assert/strict';
import test from 'node:test';
import { COLUMNS, GenerationTimes, spanFor, Timeline } from '../../../../bridges/web/page/timeline.js';

const WIDTH = 500;

const delta = (ms, tokens = 1) => ({ type: 'delta', ms, tokens });

/** A timeline with tokens at [generated, arrived], whose service began 0 ms after the page. */
function timelineOf(...tokens) {
  const times = new GenerationTimes();
  times.observe({ type: 'started', ms: 0 }, 0);
  const timeline = new Timeline(times);
  for (const [generated, arrived] of tokens) timeline.add(delta(generated), arrived);
  return timeline;
}

test('timeline: the scale grows in steps', () => {
  const hour = 3_600_000;
  const rows = [[0, 5000], [5000, 5000], [5001, 10_000], [61_000, 120_000], [hour, hour], [hour + 1, 2 * hour]];
  for (const [ms, span] of rows) assert.equal(spanFor(ms), span, `${ms} ms`);
});

test('timeline: the fastest event of all readers sets the clock of the service', () => {
  const times = new GenerationTimes();
  assert.equal(times.offset, 0);
  times.observe(delta(10), 130);
  times.observe(delta(20), 125);
  times.observe(delta(30), 400);
  assert.equal(times.offset, 105);
});

test('timeline: tokens of a merged event have the times that another reader saw', () => {
  const times = new GenerationTimes();
  for (const ms of [1000, 2000, 3000, 4000]) times.observe(delta(ms), ms);
  const timeline = new Timeline(times);
  timeline.add(delta(1000), 1000);
  timeline.add(delta(3000, 2), 3500);
  const { generated, arrived, transits } = timeline.layout(WIDTH);
  assert.deepEqual(generated, [100, 200, 300, 400]);
  assert.deepEqual(arrived, [100, 350]);
  assert.deepEqual(transits, [[100, 100], [200, 350], [300, 350]]);
});

test('timeline: a token that arrives late slants', () => {
  const { generated, arrived, transits } = timelineOf([1000, 1000], [2000, 4000]).layout(WIDTH);
  assert.deepEqual(generated, [100, 200]);
  assert.deepEqual(arrived, [100, 400]);
  assert.deepEqual(transits.map(([from, to]) => [from, Math.round(to / 10) * 10]), [[100, 100], [200, 400]]);
});

test('timeline: tokens that were held back arrive as one', () => {
  const { generated, arrived } = timelineOf([1000, 3000], [1500, 3000], [2000, 3000]).layout(WIDTH);
  assert.equal(generated.length, 3);
  assert.deepEqual(arrived, [300]);
});

test('timeline: marks and outages have their places', () => {
  const timeline = timelineOf([500, 500]);
  timeline.mark('drop', 1000);
  timeline.disconnected(1000);
  timeline.disconnected(1200);
  timeline.connected(2000);
  timeline.connected(2100);
  timeline.disconnected(3000);
  const { marks, outages } = timeline.layout(WIDTH, 4000);
  assert.deepEqual(marks, [{ kind: 'drop', x: 100 }]);
  assert.deepEqual(outages, [[100, 200], [300, 400]]);
});

test('timeline: in the end the scale fits', () => {
  const timeline = timelineOf([0, 0], [6000, 6000]);
  assert.equal(timeline.spanMs, 10_000);
  timeline.end(8000);
  assert.equal(timeline.spanMs, 8000);
  assert.equal(timeline.ended, true);
  assert.deepEqual(timeline.layout(WIDTH, 99_000).arrived, [0, 374]);
});

test('timeline: memory and layout are bounded, and no tick is lost', () => {
  const timeline = timelineOf();
  const seconds = 4000;
  for (let ms = 0; ms < seconds * 1000; ms += 10) timeline.add(delta(ms), ms + 5);
  for (let n = 0; n < 1000; n++) {
    timeline.mark('drop', n);
    timeline.disconnected(n);
    timeline.connected(n + 0.5);
  }
  const { generated, arrived, transits, marks, outages } = timeline.layout(100_000);
  for (const ticks of [generated, arrived, transits]) {
    assert.ok(ticks.length <= COLUMNS && ticks.length > COLUMNS / 4, `${ticks.length} ticks`);
  }
  assert.equal(marks.length, 32);
  assert.equal(outages.length, 64);
  assert.match(timeline.summary(), /^400000 tokens in 4000\.0 s/);
  const narrow = timeline.layout(50);
  assert.ok(narrow.generated.length <= 51);
  assert.equal(new Set(narrow.arrived).size, narrow.arrived.length);
});

test('timeline: after the resolution was halved, ticks are where they were', () => {
  const timeline = timelineOf([1000, 1200], [3000, 3500]);
  const before = timeline.layout(WIDTH, 5000);
  timeline.add(delta(4999), 4999);
  const after = timeline.layout(WIDTH, 5000);
  for (const row of ['generated', 'arrived']) {
    before[row].forEach((x, i) => assert.ok(Math.abs(x - after[row][i]) <= 1, `${row} ${i}`));
  }
});

test('timeline: numbers that make no sense are left out', () => {
  const timeline = timelineOf();
  const times = [[undefined, 1], [NaN, 1], [-1, 1], [1, -1], [1, NaN]];
  for (const [generated, arrived] of times) timeline.add(delta(generated), arrived);
  timeline.add(delta(1, 0), 1);
  assert.deepEqual(timeline.layout(WIDTH).arrived, []);
  assert.equal(timeline.summary(), 'No tokens yet.');
});

test('timeline: the summary says what the strip shows', () => {
  const timeline = new Timeline(new GenerationTimes());
  timeline.add(delta(0), 100);
  timeline.add(delta(1000, 3), 2300);
  timeline.mark('drop', 1500);
  timeline.disconnected(1500);
  timeline.connected(2200);
  timeline.mark('stop', 2300);
  timeline.end(2300);
  assert.equal(timeline.summary(),
    '4 tokens in 2.3 s; they arrived 900 ms after generation on average and 1.2 s at most; ' +
    '1 interruption, 700 ms in all; connection dropped at 1.5 s; stopped at 2.3 s.');
});
