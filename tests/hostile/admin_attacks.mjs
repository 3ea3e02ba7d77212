// Attacks on the admin ports whose cost is measured.
import { Connection, SLACK, pause } from './raw.mjs';

const SLOW = 200;
const SCRAPERS = 10;

/**
 * For `ms`, 200 connections to each admin port send one byte a second, and ten scrapers keep theirs open. Resolves with
 * the growth of each process in KiB. Connections that are closed are opened again.
 */
export async function probesUnderSlowClients(arena, { ms }) {
  const before = arena.processes.map((process) => arena.residentKb(process));
  let over = false;
  const stopped = () => over;
  const slow = async (admin) => {
    while (!over) {
      const connection = await Connection.open(admin).catch(() => undefined);
      await connection?.drip(`GET /livez HTTP/1.1\r\nHost: ${admin}\r\n${'X-Slow: y\r\n'.repeat(100)}`, 1000, stopped);
      connection?.destroy();
      if (!over) await pause(200);
    }
  };
  const scraper = async (admin) => {
    while (!over) {
      const connection = await Connection.open(admin).catch(() => undefined);
      for (let count = 1; connection && !connection.ended && !over; count++) {
        await connection.send(`GET /metrics HTTP/1.1\r\nHost: ${admin}\r\n\r\n`);
        await connection.wait(() => connection.responses().length >= 1, 2000);
        connection.received = Buffer.alloc(0);
        await pause(500);
      }
      connection?.destroy();
      if (!over) await pause(200);
    }
  };
  const all = arena.processes.flatMap(({ admin }) => [
    ...Array.from({ length: SLOW }, () => slow(admin)), ...Array.from({ length: SCRAPERS }, () => scraper(admin))]);
  await pause(ms * SLACK);
  const figures = arena.processes.map((process, i) =>
    ({ program: process.path.split('/').at(-1), kib: arena.residentKb(process) - before[i] }));
  over = true;
  await Promise.all(all);
  return figures;
}

const ENDLESS = {
  'header lines': (admin) => [`GET /livez HTTP/1.1\r\nHost: ${admin}\r\n`, `A: ${'x'.repeat(1000)}\r\n`],
  'one header line': (admin) => [`GET /livez HTTP/1.1\r\nHost: ${admin}\r\nA: `, 'x'.repeat(1000)],
  'a request line': () => ['GET /', 'x'.repeat(1000)],
  'a chunked body': (admin) => [`GET /livez HTTP/1.1\r\nHost: ${admin}\r\nTransfer-Encoding: chunked\r\n\r\n`,
    `3e8\r\n${'x'.repeat(1000)}\r\n`],
  trailers: (admin) => [`GET /livez HTTP/1.1\r\nHost: ${admin}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n`,
    `A: ${'x'.repeat(1000)}\r\n`],
};

/**
 * Sends requests without an end, up to `bytes` or until the connection is closed. Resolves with the largest growth of
 * each process in KiB and the number of bytes that were accepted.
 */
export async function takesNoMemory(arena, { bytes }) {
  const figures = [];
  for (const process of arena.processes) {
    for (const [attack, shape] of Object.entries(ENDLESS)) {
      const before = arena.residentKb(process);
      const connection = await Connection.open(process.admin);
      const [begin, more] = shape(process.admin);
      const piece = Buffer.from(more.repeat(64), 'latin1');
      let taken = 0;
      let kib = 0;
      await connection.send(begin);
      while (taken < bytes && (await connection.send(piece))) {
        taken += piece.length;
        if (taken % (1 << 20) < piece.length) kib = Math.max(kib, arena.residentKb(process) - before);
      }
      kib = Math.max(kib, arena.residentKb(process) - before);
      connection.destroy();
      figures.push({ program: process.path.split('/').at(-1), attack, kib, taken });
    }
  }
  return figures;
}
