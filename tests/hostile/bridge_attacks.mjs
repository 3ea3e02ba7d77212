// Attacks on the bridges whose cost is measured: requests and messages that are sent only in part.
import { AUTHORIZATION } from './arena.mjs';
import { Connection, pause } from './raw.mjs';
import { open, wsFrame } from './ws_raw.mjs';

const MIB = 1 << 20;
const COUNT = 100;
const CLOSE_MS = 20_000;

/** The largest growth of a process in KiB until `over` settles. */
async function highest(arena, process, before, over) {
  let most = 0;
  for (let done = false; !done;) {
    most = Math.max(most, arena.residentKb(process) - before);
    done = await Promise.race([over.then(() => true), pause(50).then(() => false)]);
  }
  return most;
}

/** Sends 100 bodies of the largest size without their last bytes. Resolves with {kib, statuses, open: connections left}. */
export async function unfinishedBodies(arena, { key = AUTHORIZATION }) {
  const before = arena.residentKb(arena.sse);
  const bytes = `POST /v1/generations HTTP/1.1\r\nHost: 127.0.0.1\r\n${key}Content-Type: application/json\r\n` +
    `Content-Length: ${MIB}\r\n\r\n{"prompt":"${'x'.repeat(MIB - 100)}`;
  const all = await Promise.all(Array.from({ length: COUNT }, () => Connection.open(arena.sse.address)));
  for (const connection of all) connection.send(bytes);
  const closing = Promise.all(all.map((connection) => connection.closed(CLOSE_MS)));
  const kib = await highest(arena, arena.sse, before, closing);
  const open = (await closing).filter((ms) => ms === undefined).length;
  for (const connection of all) connection.destroy();
  return { kib, open, statuses: new Set(all.flatMap((connection) => connection.responses()).map(({ status }) => status)) };
}

/** Sends 100 messages of the largest size in fragments without the last one. Resolves with {kib, open}. */
export async function unfinishedMessages(arena) {
  const before = arena.residentKb(arena.ws);
  const all = await Promise.all(Array.from({ length: COUNT }, () => open(arena.ws.address)));
  const bytes = Buffer.concat(Array.from({ length: 8 },
    (_, i) => wsFrame(i === 0 ? 1 : 0, 'x'.repeat((MIB - 100) / 8), { fin: false })));
  for (const connection of all) connection.send(bytes);
  const closing = Promise.all(all.map((connection) => connection.closed(CLOSE_MS)));
  const kib = await highest(arena, arena.ws, before, closing);
  const left = (await closing).filter((ms) => ms === undefined).length;
  for (const connection of all) connection.destroy();
  return { kib, open: left };
}
