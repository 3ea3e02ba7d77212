// Clients of the native streams: `eventsource`, `@microsoft/fetch-event-source` and `ws`.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { EventSource } from 'eventsource';
import WebSocket from 'ws';
import { SEED, cancels, script } from './testing.mjs';

const body = (metadata = script(), more = {}) => ({
  messages: [{ role: 'user', content: 'go' }], seed: SEED, max_tokens: 100000, metadata, ...more,
});
const post = (runnel, request) => fetch(`${runnel.url}/v1/generations`, {
  method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(request),
});

/** Checks that each seq occurs once and in order, and returns the events and their text. */
class Reader {
  events = [];
  text = '';
  add(event) {
    const last = this.events.at(-1)?.seq ?? 0;
    assert.equal(event.first_seq ?? event.seq, last + 1);
    this.events.push(event);
    this.text += event.text ?? '';
    return event.final === true;
  }
}

export function eventsource(runnel) {
  const read = async (metadata, on) => {
    const { id } = await (await post(runnel, body(metadata))).json();
    const source = new EventSource(`${runnel.url}/v1/generations/${id}/events`);
    const reader = new Reader();
    try {
      return await new Promise((resolve, reject) => {
        for (const type of ['started', 'delta', 'done', 'failed']) {
          source.addEventListener(type, ({ data }) => {
            try {
              if (reader.add(JSON.parse(data))) resolve(reader);
              on?.(reader, source, resolve);
            } catch (error) { reject(error); }
          });
        }
      });
    } finally {
      source.close();
    }
  };
  return {
    streaming: async () => assert.equal((await read(script())).text, runnel.text),
    'error within': async () => assert.equal((await read(script({ fail_at: 5 }))).events.at(-1).type, 'failed'),
    silence: async () => assert.equal((await read(script({ first_token_ms: runnel.silenceMs }))).text, runnel.text),
    'background, resume': async () => {
      let killed;
      const reader = await read(script({ tokens: 60, pace: 60 }), ({ events }) => {
        if (events.length === 10) killed = runnel.restartBridge();
      });
      await killed;
      assert.equal(reader.events.at(-1).seq, 62);
    },
  };
}

export async function fetchEventSource(runnel) {
  // It is made for pages: defines the two globals that it reads, with the values of a visible page.
  globalThis.window ??= { setTimeout, clearTimeout, fetch };
  globalThis.document ??= { hidden: false, addEventListener() {}, removeEventListener() {} };
  const { fetchEventSource: open } = await import('@microsoft/fetch-event-source');
  const read = async (metadata, on) => {
    const reader = new Reader();
    const abort = new AbortController();
    await open(`${runnel.url}/v1/generations`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', accept: 'text/event-stream' },
      body: JSON.stringify(body(metadata, { detach: { cancel_after_ms: 0 } })),
      signal: abort.signal,
      openWhenHidden: true,
      onopen: async (response) => assert.equal(response.status, 200),
      onmessage: ({ data }) => {
        if (data !== '' && reader.add(JSON.parse(data))) abort.abort();
        on?.(reader, abort);
      },
      onerror: (error) => { if (error.code === 'ERR_ASSERTION') throw error; },
    });
    return reader;
  };
  return {
    streaming: async () => assert.equal((await read(script())).text, runnel.text),
    'error within': async () => assert.equal((await read(script({ fail_at: 5 }))).events.at(-1).type, 'failed'),
    silence: async () => assert.equal((await read(script({ first_token_ms: runnel.silenceMs }))).text, runnel.text),
    abort: () => cancels(runnel, () => read(script({ tokens: 100000, pace: 50 }), ({ events }, abort) => {
      if (events.length === 5) abort.abort();
    })),
  };
}

export function ws(runnel) {
  const read = async (first, on, reader = new Reader()) => {
    const socket = new WebSocket(runnel.wsUrl, ['runnel.v1'], { origin: runnel.url });
    await once(socket, 'open');
    socket.send(JSON.stringify(first));
    return new Promise((resolve, reject) => {
      socket.on('close', () => resolve(reader));
      socket.on('message', (data) => {
        try {
          const message = JSON.parse(data);
          if (message.type === 'error') throw new Error(message.error.message);
          if (['hello', 'attached', 'pong', 'heartbeat'].includes(message.type)) return;
          if (reader.add(message)) socket.close();
          on?.(reader, socket);
        } catch (error) { reject(error); }
      });
    });
  };
  const generate = (metadata, on, more) => read({ type: 'generate', req: 'a', body: body(metadata, more) }, on);
  return {
    streaming: async () => assert.equal((await generate(script())).text, runnel.text),
    'error before': async () => assert.rejects(generate(script(), null, { temperature: 9 }), /temperature/),
    'error within': async () => assert.equal((await generate(script({ fail_at: 5 }))).events.at(-1).type, 'failed'),
    silence: async () => assert.equal((await generate(script({ first_token_ms: runnel.silenceMs }))).text, runnel.text),
    abort: () => cancels(runnel, () => generate(script({ tokens: 100000, pace: 50 }), ({ events }, socket) => {
      if (events.length === 5) socket.close();
    }, { detach: { cancel_after_ms: 0 } })),
    'background, resume': async () => {
      const reader = await generate(script({ tokens: 60, pace: 60 }), ({ events }, socket) => {
        if (events.length === 10) socket.terminate();
      });
      const { gen } = reader.events[0];
      await read({ type: 'resume', req: 'b', gen, after: reader.events.at(-1).seq }, null, reader);
      assert.equal(reader.events.at(-1).seq, 62);
    },
  };
}
