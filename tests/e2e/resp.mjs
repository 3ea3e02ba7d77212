// A client of Redis and Valkey, as far as tests need one: RESP2, one command after the other.
import { once } from 'node:events';
import { connect } from 'node:net';

const encode = (args) => Buffer.concat([Buffer.from(`*${args.length}\r\n`), ...args.map((arg) => {
  const bytes = Buffer.from(String(arg));
  return Buffer.concat([Buffer.from(`$${bytes.length}\r\n`), bytes, Buffer.from('\r\n')]);
})]);

/** One reply from the front of `buffer` at `at`: {value, end}; undefined if it is incomplete. An error is a value. */
export function parseReply(buffer, at = 0) {
  const lineEnd = buffer.indexOf('\r\n', at);
  if (lineEnd < 0) return undefined;
  const line = buffer.toString('utf8', at + 1, lineEnd);
  const end = lineEnd + 2;
  const kind = String.fromCharCode(buffer[at]);
  if (kind === '+') return { value: line, end };
  if (kind === '-') return { value: new Error(line), end };
  if (kind === ':') return { value: Number(line), end };
  const count = Number(line);
  if (kind === '$') {
    if (count < 0) return { value: null, end };
    return buffer.length < end + count + 2 ? undefined : { value: buffer.toString('utf8', end, end + count), end: end + count + 2 };
  }
  if (kind !== '*') throw new Error(`not a reply: ${buffer.toString('utf8', at, lineEnd)}`);
  if (count < 0) return { value: null, end };
  const values = [];
  let next = end;
  for (let i = 0; i < count; i++) {
    const item = parseReply(buffer, next);
    if (item === undefined) return undefined;
    values.push(item.value);
    next = item.end;
  }
  return { value: values, end: next };
}

/** Sends commands on a connection of their own and resolves with their replies; rejects with the first error. */
export async function redisCommands(port, commands, { timeoutMs = 5000 } = {}) {
  const socket = connect(port, '127.0.0.1');
  socket.setTimeout(timeoutMs, () => socket.destroy(new Error(`no reply on port ${port} within ${timeoutMs} ms`)));
  let buffer = Buffer.alloc(0);
  const replies = [];
  try {
    await once(socket, 'connect');
    socket.write(Buffer.concat(commands.map(encode)));
    for await (const bytes of socket) {
      buffer = Buffer.concat([buffer, bytes]);
      for (let reply; replies.length < commands.length && (reply = parseReply(buffer)) !== undefined;) {
        if (reply.value instanceof Error) throw reply.value;
        replies.push(reply.value);
        buffer = buffer.subarray(reply.end);
      }
      if (replies.length === commands.length) return replies;
    }
    throw new Error(`port ${port} closed the connection`);
  } finally {
    socket.destroy();
  }
}
