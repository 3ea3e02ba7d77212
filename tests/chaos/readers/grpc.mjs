// A gRPC client for Generate and ResumeGeneration over node's HTTP/2.
import http2 from 'node:http2';
import { Break, Refused, Wrong } from '../faults.mjs';
import { decode, eventOf, field, generateRequest, openedPartOf } from '../protobuf.mjs';
import { Inbox } from './inbox.mjs';

// https://grpc.github.io/grpc/core/md_doc_statuscodes.html to the HTTP status of the same error.
const HTTP_STATUS = { 3: 400, 4: 504, 5: 404, 8: 503, 9: 400, 11: 410, 13: 500, 14: 503 };
const END = Symbol('end');

function call(session, method, message) {
  const prefix = Buffer.alloc(5);
  prefix.writeUInt32BE(message.length, 1);
  const stream = session.request({
    ':method': 'POST', ':path': `/runnel.v1.InferenceService/${method}`,
    'content-type': 'application/grpc', te: 'trailers',
  });
  stream.end(Buffer.concat([prefix, message]));
  return stream;
}

function messagesInto(stream, take) {
  let buffer = Buffer.alloc(0);
  stream.on('data', (bytes) => {
    buffer = buffer.length > 0 ? Buffer.concat([buffer, bytes]) : bytes;
    while (buffer.length >= 5 && buffer.length >= 5 + buffer.readUInt32BE(1)) {
      const end = 5 + buffer.readUInt32BE(1);
      take(buffer.subarray(5, end));
      buffer = buffer.subarray(end);
    }
  });
}

/** `details`: the reason of the error, from its status. */
function endOf(trailers) {
  const status = Number(trailers['grpc-status']);
  if (status === 0) return END;
  if (status === 1) return new Break('cancelled');
  const details = Buffer.from(trailers['grpc-status-details-bin'] ?? '', 'base64').toString('latin1');
  const reason = /[A-Z][A-Z_]{5,}/.exec(details)?.[0] ?? '';
  return new Refused('gRPC', HTTP_STATUS[status] ?? 500, reason.toLowerCase(), trailers['grpc-message']);
}

/** Reads after a cursor, or starts a generation. Ends without an event if all events were read before. */
export async function* readGrpc(target, { script, id, after, epoch, idleMs }) {
  const inbox = new Inbox();
  const broken = (kind, more) => inbox.fail(new Break(kind, more));
  const session = http2.connect(`http://${target}`);
  session.on('error', (error) => broken(error.code ?? error.message));
  session.on('close', () => broken('closed'));
  session.setTimeout(idleMs, () => broken('silence', { silent: true }));
  try {
    const stream = id === undefined
      ? call(session, 'Generate', generateRequest(script))
      : call(session, 'ResumeGeneration', Buffer.concat([field.text(1, id), field.number(2, after), field.number(5, epoch)]));
    messagesInto(stream, (message) => {
      try {
        const fields = decode(message);
        const event = eventOf(fields.get(1).at(-1));
        if (fields.has(2)) inbox.push({ type: 'attached', gen: event.gen, parts: fields.get(2).map(openedPartOf) });
        inbox.push(event);
      } catch (error) {
        inbox.fail(new Wrong(`not an event: ${error.message}`));
      }
    });
    stream.on('response', (headers) => 'grpc-status' in headers && inbox.push(endOf(headers)));
    stream.on('trailers', (trailers) => inbox.push(endOf(trailers)));
    stream.on('error', (error) => broken(error.code ?? error.message));
    stream.on('close', () => broken('an end without a status'));
    let ended = false;
    for (;;) {
      const event = await inbox.next();
      if (event instanceof Error) throw event;
      if (event === END) break;
      if (ended) throw new Wrong(`after the terminal event: ${JSON.stringify(event)}`);
      ended = event.type === 'done' || event.type === 'failed';
      yield event;
      // The status follows, but the reader does not need it.
      if (ended) return;
    }
  } finally {
    session.destroy();
  }
}
