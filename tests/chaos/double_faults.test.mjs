// The judge of the shared log's chaos: it explains what a double fault explains, and nothing else.
import assert from 'node:assert/strict';
import { appendFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import { CheckedLog, Tally, crcOf } from './checked_log.mjs';
import { FaultLog, Judge } from './double_faults.mjs';
import { ReplicaLogs } from './replica_logs.mjs';
import { ReplicaMetrics } from './replica_metrics.mjs';
import { SaltedScript } from './salted_script.mjs';
import { Script } from './script.mjs';

const STORE = { store: true };
const GONE = { gone: true };
const reader = { startedAt: 1000, heardAt: 10_000, at: 12_000 };

function faultsOf(...faults) {
  const log = new FaultLog();
  for (const [kind, what] of faults) log.begin(kind, what);
  return log;
}

const explained = [
  ['killed while the store is away', [['away', { ...STORE, from: 9000, to: 11_000 }], ['kill', { ...GONE, replica: 1, from: 10_500, to: 10_500 }]], 'away and kill'],
  ['killed before the store is filled up again', [['away', { ...STORE, from: 9000, to: 9500 }], ['kill', { ...GONE, replica: 1, from: 11_000, to: 11_000 }]], 'away and kill'],
  ['killed just before a store that forgets', [['kill', { ...GONE, replica: 1, from: 9000, to: 9000 }], ['lost', { ...STORE, from: 10_500, to: 10_600, forgetsMs: 2000 }]], 'lost and kill'],
  ['announced by the replica that is killed', [['announced', { ...STORE, replica: 1, from: 9000, to: 10_000 }], ['kill', { ...GONE, replica: 1, from: 10_100, to: 10_100 }]], 'announced and kill'],
  ['announced by a replica that was stopped until then', [['stop', { ...GONE, replica: 1, from: 5000, to: 8500 }], ['announced', { ...STORE, replica: 1, from: 9000, to: 9200 }]], 'announced and stop'],
  ['cut from the other replicas while the store is away', [['away', { ...STORE, from: 9000, to: 11_000 }], ['cut', { unreached: true, replica: 1, from: 10_500, to: 11_500 }]], 'away and cut'],
  ['cut from the store', [['cut', { ...STORE, ...GONE, replica: 2, from: 9000, to: 11_000 }]], 'cut'],
];
for (const [what, faults, reason] of explained) {
  test(`a gap is explained: ${what}`, () => assert.equal(faultsOf(...faults).explainGap(reader), reason));
}

const unexplained = [
  ['no fault', []],
  ['only a kill', [['kill', { ...GONE, replica: 1, from: 10_500, to: 10_500 }]]],
  ['only cut from the other replicas', [['cut', { unreached: true, replica: 1, from: 10_500, to: 11_500 }]]],
  ['only the store', [['away', { ...STORE, from: 9000, to: 11_000, forgetsMs: 2000 }]]],
  ['announced by a replica long after it was stopped', [['stop', { ...GONE, replica: 1, from: 3000, to: 6000 }], ['announced', { ...STORE, replica: 1, from: 9000, to: 9200 }]]],
  ['announced by another replica than the one that was stopped', [['stop', { ...GONE, replica: 0, from: 5000, to: 8500 }], ['announced', { ...STORE, replica: 1, from: 9000, to: 9200 }]]],
  ['announced by another replica', [['announced', { ...STORE, replica: 0, from: 9000, to: 10_000 }], ['kill', { ...GONE, replica: 1, from: 10_100, to: 10_100 }]]],
  ['filled up long before the kill', [['away', { ...STORE, from: 2000, to: 3000 }], ['kill', { ...GONE, replica: 1, from: 10_500, to: 10_500 }]]],
  ['nothing heard since the store was away', [['away', { ...STORE, from: 10_500, to: 11_000 }], ['kill', { ...GONE, replica: 1, from: 10_700, to: 10_700 }]]],
  ['killed long before the store was away', [['kill', { ...GONE, replica: 1, from: 2000, to: 2000 }], ['away', { ...STORE, from: 9000, to: 9500 }]]],
  ['taken over long before the store forgot', [['kill', { ...GONE, replica: 1, from: 2000, to: 2000 }], ['flushed', { ...STORE, from: 9000, to: 9000, forgetsMs: Infinity }]]],
  ['after the gap', [['away', { ...STORE, from: 12_500, to: 13_000, forgetsMs: 5000 }], ['kill', { ...GONE, replica: 1, from: 12_600, to: 12_600 }]]],
  ['before the generation', [['away', { ...STORE, from: -9000, to: -5000 }], ['kill', { ...GONE, replica: 1, from: -5500, to: -5500 }]]],
];
for (const [what, faults] of unexplained) {
  test(`a gap is not explained: ${what}`, () => assert.equal(faultsOf(...faults).explainGap(reader), undefined));
}

test('a finished log is lost only if the store has missed it and its replica is gone, then or later', () => {
  const flushed = ['flushed', { ...STORE, from: 11_000, to: 11_000, forgetsMs: Infinity }];
  const killed = ['kill', { ...GONE, replica: 1, from: 90_000, to: 90_000 }];
  const ended = { startedAt: 1000, endedAt: 8000, at: 100_000 };
  assert.equal(faultsOf(flushed, killed).explainLoss(ended), 'flushed, later kill');
  assert.equal(faultsOf(flushed).explainLoss(ended), undefined);
  assert.equal(faultsOf(killed).explainLoss(ended), undefined);
  const returned = [['stop', { ...GONE, replica: 1, from: 4000, to: 7000 }], ['announced', { ...STORE, replica: 1, from: 7500, to: 8500 }]];
  assert.equal(faultsOf(...returned).explainLoss(ended), 'announced, later stop');
  assert.equal(faultsOf(...returned.slice(0, 1), ['announced', { ...STORE, replica: 2, from: 7500, to: 8500 }]).explainLoss(ended), undefined);
  const later = { ...ended, endedAt: 20_000 };
  assert.equal(faultsOf(flushed, killed).explainLoss(later), undefined);
  assert.equal(faultsOf(flushed, killed).explainLoss({ ...later, endedFrom: 10_000 }), 'flushed, later kill', 'its reader heard of the end late');
  const away = ['away', { ...STORE, from: 9500, to: 11_000, forgetsMs: 1000 }];
  assert.equal(faultsOf(away, killed).explainLoss(ended), undefined);
  assert.equal(faultsOf(away, killed).explainLoss({ ...ended, endedAt: 9000 }), 'away, later kill');
  assert.equal(faultsOf(flushed, killed).explainLoss({ ...ended, endedAt: 20_000 }), undefined);
  // A store that was away has not forgotten anything: it is filled up, unless the replica is gone before.
  const stopped = ['stopped', { ...STORE, from: 7500, to: 9000 }];
  assert.equal(faultsOf(stopped, killed).explainLoss(ended), undefined);
  const soon = ['kill', { ...GONE, replica: 1, from: 9500, to: 9500 }];
  assert.equal(faultsOf(stopped, soon).explainLoss(ended), 'stopped, later kill');
});

const EPOCH = 0x10000;
const script = (more) => new Script({ seed: 9, tokens: 4, pace: 1, ...more });

/** A log whose judge allows everything or nothing, and what it has counted. */
function judged(of, allows) {
  const tally = new Tally();
  const reason = () => (allows ? 'a reason' : undefined);
  const log = new CheckedLog(of, tally, { gap: reason, loss: reason, moved: () => {} });
  return { log, tally, on: log.connection('test') };
}

const delta = (of, seq, more) => {
  const { choice, content } = of.delta(seq);
  return { type: 'delta', gen: 'g', seq, choice, text: content, tokens: 1, ...more };
};
const started = { type: 'started', gen: 'g', seq: 1 };
const doneOf = (text, seq, more) => ({ type: 'done', gen: 'g', seq, events: seq, ...more,
  choices: [{ index: 0, finish_reason: 'stop', text_bytes: Buffer.byteLength(text), crc32: crcOf(Buffer.from(text)) }] });

test('a gap replaces what was read, and the rest must follow it', () => {
  const of = script();
  const { log, tally, on } = judged(of, true);
  for (const event of [started, delta(of, 2), delta(of, 3), delta(of, 4)]) log.apply(event, on);
  log.apply({ type: 'gap', gen: 'g', seq: 2, epoch: EPOCH, requested_after: 4, first_available: 3,
    snapshot: { seq: 2, choices: [{ index: 0, text: of.texts(2)[0] }] } }, on);
  for (const seq of [3, 4, 5]) log.apply(delta(of, seq, { epoch: EPOCH }), on);
  log.apply(doneOf(of.texts()[0], 6, { epoch: EPOCH }), on);
  assert.deepEqual(tally.firstFaults, []);
  assert.deepEqual([...tally.explained], [['gap: a reason', 1]]);
  assert.ok(log.ended);
});

test('a reader of the first event only may come to an earlier epoch without a gap, with an explanation', () => {
  for (const [explained, last, faults] of [[true, 1, 0], [false, 1, 1], [true, 2, 1]]) {
    const of = script();
    const { log, tally, on } = judged(of, explained);
    log.apply({ ...started, epoch: EPOCH + 1 }, on);
    if (last > 1) log.apply(delta(of, 2, { epoch: EPOCH + 1 }), on);
    log.apply(delta(of, last + 1, { epoch: EPOCH }), on);
    assert.equal(tally.reordered, faults, `${explained} ${last}`);
  }
});

for (const [what, kind, events] of [
  ['a gap that nothing explains', 'gaps', (of) => [started, { type: 'gap', gen: 'g', seq: 0, requested_after: 1 }, delta(of, 2)]],
  ['an earlier epoch without a gap', 'reordered', (of) => [started, delta(of, 2, { epoch: EPOCH }), delta(of, 3)]],
  ['a lost generation that nothing explains', 'badTerminal', () => [started, { type: 'failed', gen: 'g', seq: 2, error: { code: 'generation_lost' } }]],
]) {
  test(`a fault: ${what}`, () => {
    const of = script();
    const { log, tally, on } = judged(of, false);
    for (const event of events(of)) if (tally.faults === 0) log.apply(event, on);
    assert.equal(tally[kind], 1, tally.firstFaults.join());
  });
}

test('a fault: a gap whose snapshot or cursor is wrong', () => {
  const of = script();
  for (const gap of [{ requested_after: 1, text: 'other' }, { requested_after: 3, text: of.texts(2)[0] }]) {
    const { log, tally, on } = judged(of, true);
    log.apply(started, on);
    log.apply({ type: 'gap', gen: 'g', seq: 2, epoch: EPOCH, ...gap, snapshot: { seq: 2, choices: [{ index: 0, text: gap.text }] } }, on);
    assert.equal(tally.wrongText, 1);
  }
});

test('a lost generation that a double fault explains ends the log', () => {
  const { log, tally, on } = judged(script(), true);
  log.apply(started, on);
  log.apply({ type: 'failed', gen: 'g', seq: 2, error: { code: 'generation_lost' } }, on);
  assert.equal(tally.faults, 0);
  assert.equal(log.terminal.type, 'lost');
});

test('who reads again from the beginning may find another text, with an explanation', () => {
  for (const [loss, gap, faults] of [['a reason', undefined, 0], [undefined, 'a reason', 0], [undefined, undefined, 1]]) {
    const of = script();
    const { log, tally, on } = judged(of, false);
    Object.assign(log, { again: true, judge: { loss: () => loss, gap: () => gap, moved: () => {} } });
    log.apply(started, on);
    log.apply({ ...delta(of, 2), text: 'other' }, on);
    assert.equal(tally.wrongText, faults);
    assert.equal(log.terminal?.type, faults === 0 ? 'lost' : undefined);
  }
});

const words = (salts) => {
  const plain = new Script({ seed: 9, tokens: salts.length, pace: 1 });
  return salts.map((salt, index) => {
    const { content, wordAt } = plain.delta(2 + index);
    return `${content.slice(0, wordAt)}${salt}:${index}|${content.slice(wordAt)}`;
  });
};
const saltedOf = (salts) => new SaltedScript({ seed: 9, tokens: salts.length, pace: 1 });

test('salted words: whole logs, merged deltas, takeovers', () => {
  const salts = ['a', 'a', 'b', 'b', 'a'];
  const texts = words(salts);
  const of = saltedOf(salts);
  assert.ok(of.learn({ text: texts[0], seq: 2 }, 2));
  assert.ok(of.learn({ text: texts.slice(1, 4).join(''), seq: 5, epoch: EPOCH + 7 }, 3));
  assert.ok(of.learn({ text: texts[4], seq: 6, epoch: 2 * EPOCH }, 6));
  assert.deepEqual(of.texts(), [texts.join('')]);
  // The same again is no change.
  assert.ok(of.learn({ text: texts.join(''), seq: 6, epoch: 2 * EPOCH }, 2));
});

test('salted words: parts and choices', () => {
  const segments = [{ kind: 'text', tokens: 1 }, { kind: 'tool_call', names: ['f'], tokens: 1 }];
  const of = new SaltedScript({ seed: 9, segments, choices: 2, pace: 1 });
  const plain = new Script({ seed: 9, segments, choices: 2, pace: 1 });
  for (let seq = 2; seq < of.lastSeq; seq++) {
    const { kind, content, wordAt, index } = plain.delta(seq);
    const marked = wordAt === undefined ? '' : `${content.slice(0, wordAt)}x:${index}|${content.slice(wordAt)}`;
    assert.ok(of.learn(kind === 'text' ? { text: marked, seq } : { kind, content: marked, text: '', seq }, seq), String(seq));
  }
  const learned = of.parts();
  assert.match(learned[1][1].content, /^\{"words":"x:2\|.+"\}$/);
  assert.ok(of.relearn(learned, of.lastSeq, 0));
  assert.deepEqual(of.parts(), learned);
});

for (const [what, texts, epoch] of [
  ['another salt without a takeover', words(['a', 'b']), 0],
  ['more salts than takeovers', words(['a', 'b', 'c']), EPOCH],
  ['a missing word', [words(['a', 'a'])[1]], EPOCH],
  ['a repeated word', [words(['a'])[0], words(['a'])[0]], EPOCH],
  ['words without a salt', [new Script({ seed: 9, tokens: 1, pace: 1 }).texts()[0]], EPOCH],
  ['more than the words', [`${words(['a'])[0]}!`], EPOCH],
]) {
  test(`salted words, a fault: ${what}`, () => {
    assert.equal(saltedOf(texts).learn({ text: texts.join(''), seq: 1 + texts.length, epoch }, 2), false);
  });
}

test('salted words: two takeovers of the same number', () => {
  const texts = words(['a', 'b', 'c']);
  const of = saltedOf(texts);
  for (const [index, epoch] of [[0, 0], [1, EPOCH], [2, EPOCH + 1]]) {
    assert.ok(of.learn({ text: texts[index], seq: 2 + index, epoch }, 2 + index), `${index}`);
  }
});

test('salted words: read again at a replica that does not know of the takeover', () => {
  const texts = words(['a', 'a', 'b', 'b']);
  const of = saltedOf(texts);
  assert.equal(of.learn({ text: texts.join(''), seq: 5, epoch: EPOCH }, 2), true);
  assert.equal(of.learn({ text: texts.slice(0, 2).join(''), seq: 3 }, 2), true);
  assert.equal(of.learn({ text: texts.slice(0, 3).join(''), seq: 4 }, 2), false, 'behind the takeover');
});

test('salted words, a fault: read again, they differ', () => {
  const of = saltedOf(['a', 'a']);
  assert.ok(of.learn({ text: words(['a', 'a']).join(''), seq: 3 }, 2));
  assert.equal(of.learn({ text: words(['a', 'b']).join(''), seq: 3, epoch: 9 * EPOCH }, 2), false);
  // After a gap they may.
  assert.ok(of.relearn([[{ kind: 'text', content: words(['a', 'b']).join('') }]], 3, EPOCH));
  assert.deepEqual(of.texts(), [words(['a', 'b']).join('')]);
});

test('a takeover is measured from the fault that explains it', () => {
  const faults = new FaultLog();
  const judge = new Judge(faults);
  const of = script();
  const log = new CheckedLog(of, new Tally(), judge);
  const on = log.connection('test');
  log.apply(started, on);
  log.apply(delta(of, 2), on);
  faults.note('kill -9', GONE);
  log.apply(delta(of, 3, { epoch: EPOCH }), on);
  log.apply(delta(of, 4, { epoch: 2 * EPOCH }), on);
  assert.deepEqual([judge.takeovers, judge.resumes.get('kill -9').length, judge.resumes.size], [2, 1, 1]);
});

test('metrics of replicas are summed over restarts', async (t) => {
  const text = (takeovers, seconds) => `# HELP x\nrunnel_takeovers_total{cause="refused",exact="true"} ${takeovers}\n` +
    `runnel_log_unprotected_seconds_total ${seconds}\nrunnel_log_connected 1\n`;
  const real = globalThis.fetch;
  t.after(() => (globalThis.fetch = real));
  const replica = { index: 1, run: 1, admin: 'x' };
  const metrics = new ReplicaMetrics([replica]);
  const say = async (...what) => {
    globalThis.fetch = async () => ({ text: async () => text(...what) });
    await metrics.sample(replica);
  };
  await say(3, 0);
  await say(5, 0.5);
  replica.run = 2;
  await say(1, 0.25);
  assert.equal(metrics.total('runnel_takeovers_total'), 6);
  assert.equal(metrics.total('runnel_log_unprotected_seconds_total'), 0.75);
});

test('a replica announces in its log when it is unprotected, and its next run ends that', (t) => {
  const file = join(tmpdir(), `runnel-announced-${process.pid}.log`);
  t.after(() => rmSync(file));
  const line = (ms, text) => `${new Date(performance.timeOrigin + ms).toISOString()} warn runnel-inference ${text}\n`;
  const faults = new FaultLog();
  const logs = new ReplicaLogs([{ index: 2, log: file }], faults);
  writeFileSync(file, line(1000, 'serving model m') + line(5000, 'the store does not answer: logs are unprotected, 3 run').slice(0, -5));
  logs.read();
  assert.equal(faults.faults.length, 0);
  appendFileSync(file, ' run\n');
  logs.read();
  assert.deepEqual(faults.faults.map(({ store, replica, to }) => [store, replica, to]), [[true, 2, Infinity]]);
  appendFileSync(file, line(6000, 'logs are protected by the store again, after 1.0 s') + line(7000, 'logs are unprotected, 1') +
    line(9000, 'serving model m'));
  logs.read();
  assert.deepEqual(faults.faults.map(({ from, to }) => [Math.round((from + 50) / 10), Math.round((to - 50) / 10)]), [[500, 600], [700, 900]]);
});
