// The rules of RFC 6455, in the sections of Autobahn's test suite, as cases of the real protocol: {name, send, expect}.
// `send`: chunks of bytes. `expect`: what the server sends (see summary() in ws_frames.mjs); an array means any of its
// elements. A case that does not end with `close` also proves that the connection still works. `protocol`: runnel.v1 by
// default.
import { BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, closeFrame, fragments, frame } from './ws_frames.mjs';

export const PROTO = 'runnel.v1.proto';
const MIB = 1 << 20;

/** A message with the reply `pong ${t}`, padded with spaces to `size` bytes. */
export const ping = (t, size = 0) => `{"type":"ping","t":${t}}`.padEnd(size);
/** A message with the reply `echo ${text}`. */
const echo = (text) => Buffer.concat([Buffer.from('{"type":"ping","req":"'), Buffer.from(text), Buffer.from('"}')]);

/** The same in Protobuf, padded with an unknown field. */
export function protoPing(t, size = 0) {
  const message = Buffer.alloc(11);
  Buffer.from([0x32, 0x09, 0x09]).copy(message);
  message.writeDoubleLE(t, 3);
  for (let filling = size - message.length - 3; size > message.length && filling > 0; filling--) {
    const head = [0xc2, 0x3e];
    for (let rest = filling; ; rest >>>= 7) {
      head.push(rest > 0x7f ? rest & 0x7f | 0x80 : rest);
      if (rest <= 0x7f) break;
    }
    if (message.length + head.length + filling === size) {
      return Buffer.concat([message, Buffer.from(head), Buffer.alloc(filling, 0xfe)]);
    }
  }
  return message;
}

const chopped = (bytes, size) => Array.from({ length: Math.ceil(bytes.length / size) },
  (_, i) => bytes.subarray(i * size, (i + 1) * size));
const octets = (bytes) => chopped(bytes, 1);

function* framing() {
  yield { name: 'text of no byte', send: [frame(TEXT)], expect: ['error bad_frame'] };
  yield { name: 'binary of no byte', protocol: PROTO, send: [frame(BINARY)], expect: ['error bad_frame'] };
  for (const size of [22, 125, 126, 127, 128, 65_535, 65_536]) {
    yield { name: `text of ${size} bytes`, send: [frame(TEXT, ping(1, size))], expect: ['pong 1'] };
    if (size > 22) {
      yield { name: `binary of ${size} bytes`, protocol: PROTO, send: [frame(BINARY, protoPing(1, size))], expect: ['pong 1'] };
    }
    yield { name: `text of ${size} bytes, in pieces`, send: chopped(frame(TEXT, ping(1, size)), 997), expect: ['pong 1'] };
  }
  for (const size of [22, 125, 126]) {
    yield { name: `text of ${size} bytes, octet by octet`, send: octets(frame(TEXT, ping(1, size))), expect: ['pong 1'] };
  }
  for (const mask of [[0, 0, 0, 0], [255, 255, 255, 255], [1, 0, 0, 0], [0x22, 0x7b, 0x7d, 0x3a]]) {
    yield { name: `mask ${mask}`, send: [frame(TEXT, ping(2), { mask })], expect: ['pong 2'] };
  }
  for (const [what, opcode, payload] of [['text', TEXT, ping(1)], ['ping', PING, 'p'], ['close', CLOSE, ''], ['text of no byte', TEXT, '']]) {
    yield { name: `${what}, not masked`, send: [frame(opcode, payload, { mask: null })], expect: ['close 1002'] };
  }
  for (const [size, form] of [[0, 2], [125, 2], [125, 8], [126, 8], [65_535, 8]]) {
    yield { name: `${size} bytes as a length of ${form} bytes`, send: [frame(TEXT, ''.padEnd(size), { form })], expect: ['close 1002'] };
  }
  yield { name: 'binary where text is spoken', send: [frame(BINARY, ping(1))], expect: ['close 1003'] };
  yield { name: 'binary fragment where text is spoken', send: [frame(BINARY, '{', { fin: false })], expect: ['close 1003'] };
  yield { name: 'text where binary is spoken', protocol: PROTO, send: [frame(TEXT, ping(1))], expect: ['close 1003'] };
  yield { name: 'empty text where binary is spoken', protocol: PROTO, send: [frame(TEXT)], expect: ['close 1003'] };
  yield { name: 'many messages in one packet', send: [Buffer.concat(Array.from({ length: 200 }, (_, i) => frame(TEXT, ping(i))))],
    expect: Array.from({ length: 200 }, (_, i) => `pong ${i}`) };
}

function* pings() {
  const payloads = ['', 'Hello, world!', Buffer.from([0, 255, 254, 253, 252, 251, 0, 255]), Buffer.alloc(125, 0xfe)];
  for (const payload of payloads) {
    const bytes = Buffer.from(payload);
    const reply = [`PONG ${bytes.toString('hex')}`];
    yield { name: `ping of ${bytes.length} bytes`, send: [frame(PING, bytes)], expect: reply };
    yield { name: `ping of ${bytes.length} bytes, octet by octet`, send: octets(frame(PING, bytes)), expect: reply };
    yield { name: `unsolicited pong of ${bytes.length} bytes`, send: [frame(PONG, bytes)], expect: [] };
    yield { name: `ping of ${bytes.length} bytes over binary`, protocol: PROTO, send: [frame(PING, bytes)], expect: reply };
  }
  for (const [what, opcode] of [['ping', PING], ['pong', PONG], ['close', CLOSE]]) {
    for (const size of [126, 127, 1000, 65_536]) {
      yield { name: `${what} of ${size} bytes`, send: [frame(opcode, Buffer.alloc(size, 3))], expect: ['close 1002'] };
    }
    yield { name: `${what} of 5 bytes as a length of 2 bytes`, send: [frame(opcode, 'abcde', { form: 2 })], expect: ['close 1002'] };
  }
  yield { name: 'pong, then ping', send: [frame(PONG, 'unasked'), frame(PING, 'asked')], expect: ['PONG 61736b6564'] };
  const ten = Array.from({ length: 10 }, (_, i) => frame(PING, `payload-${i}`));
  const replies = Array.from({ length: 10 }, (_, i) => `PONG ${Buffer.from(`payload-${i}`).toString('hex')}`);
  yield { name: 'ten pings', send: ten, expect: replies };
  yield { name: 'ten pings in one packet', send: [Buffer.concat(ten)], expect: replies };
  yield { name: 'ten pings, octet by octet', send: ten.flatMap(octets), expect: replies };
}

function* reserved() {
  const kinds = [['text', TEXT, ping(9)], ['empty text', TEXT, ''], ['ping', PING, 'p'], ['pong', PONG, ''], ['close', CLOSE, '']];
  for (let rsv = 1; rsv <= 7; rsv++) {
    for (const [what, opcode, payload] of kinds) {
      yield { name: `reserved bits ${rsv} in a ${what}`,
        send: [frame(TEXT, ping(1)), frame(opcode, payload, { rsv }), frame(PING)], expect: ['pong 1', 'close 1002'] };
    }
    yield { name: `reserved bits ${rsv}, octet by octet`, send: octets(frame(TEXT, ping(9), { rsv })), expect: ['close 1002'] };
    yield { name: `reserved bits ${rsv} in a continuation`,
      send: [frame(TEXT, '{', { fin: false }), frame(CONTINUATION, '}', { rsv })], expect: ['close 1002'] };
  }
}

function* opcodes() {
  for (const opcode of [3, 4, 5, 6, 7, 11, 12, 13, 14, 15]) {
    for (const payload of ['', 'reserved opcode']) {
      yield { name: `opcode ${opcode}, ${payload.length} bytes`, send: [frame(opcode, payload)], expect: ['close 1002'] };
    }
    yield { name: `opcode ${opcode} between two messages`,
      send: [frame(TEXT, ping(1)), frame(opcode, 'x'), frame(TEXT, ping(2))], expect: ['pong 1', 'close 1002'] };
    yield { name: `opcode ${opcode} between two fragments`,
      send: [frame(TEXT, '{', { fin: false }), frame(opcode, ''), frame(CONTINUATION, '}')], expect: ['close 1002'] };
  }
}

function* fragmentation() {
  for (const [what, opcode] of [['ping', PING], ['pong', PONG], ['close', CLOSE]]) {
    yield { name: `${what} in fragments`, send: [frame(opcode, 'ab', { fin: false }), frame(CONTINUATION, 'cd')], expect: ['close 1002'] };
    yield { name: `empty first fragment of a ${what}`, send: [frame(opcode, '', { fin: false })], expect: ['close 1002'] };
  }
  const text = ping(5, 64);
  for (const size of [1, 2, 7, 22, 63]) {
    yield { name: `text in fragments of ${size}`, send: [fragments(TEXT, text, size)], expect: ['pong 5'] };
    yield { name: `text in fragments of ${size}, octet by octet`, send: octets(fragments(TEXT, text, size)), expect: ['pong 5'] };
    yield { name: `binary in fragments of ${size}`, protocol: PROTO, send: [fragments(BINARY, protoPing(5, 64), size)], expect: ['pong 5'] };
    const count = Math.ceil(text.length / size) - 1;
    yield { name: `text in fragments of ${size}, pings between them`, send: [fragments(TEXT, text, size, frame(PING, 'p'))],
      expect: [...Array(count).fill('PONG 70'), 'pong 5'] };
    yield { name: `text in fragments of ${size}, pongs between them`, send: [fragments(TEXT, text, size, frame(PONG, 'p'))], expect: ['pong 5'] };
  }
  const first = (payload = '') => frame(TEXT, payload, { fin: false });
  const middle = (payload = '') => frame(CONTINUATION, payload, { fin: false });
  const last = (payload = '') => frame(CONTINUATION, payload);
  yield { name: 'empty fragments around the text', send: [first(), middle(), middle(ping(5)), middle(), last()], expect: ['pong 5'] };
  yield { name: 'only empty fragments', send: [first(), middle(), last()], expect: ['error bad_frame'] };
  yield { name: 'a thousand empty fragments', send: [first(ping(5)), ...Array(1000).fill(middle()), last()], expect: ['pong 5'] };
  yield { name: 'two messages in fragments', send: [first(ping(5)), last(), first(ping(6)), last()], expect: ['pong 5', 'pong 6'] };
  for (const [what, bytes] of [['last', last('x')], ['empty last', last()], ['middle', middle('x')], ['empty middle', middle()]]) {
    yield { name: `${what} fragment of nothing`, send: [bytes], expect: ['close 1002'] };
    yield { name: `${what} fragment of nothing, behind a message`, send: [frame(TEXT, ping(1)), bytes], expect: ['pong 1', 'close 1002'] };
    yield { name: `${what} fragment of nothing, behind fragments`, send: [first(ping(1)), last(), bytes], expect: ['pong 1', 'close 1002'] };
    yield { name: `${what} fragment of nothing, octet by octet`, send: octets(bytes), expect: ['close 1002'] };
  }
  for (const [what, bytes] of [['text', frame(TEXT, ping(1))], ['empty text', frame(TEXT)], ['first fragment', first('x')],
    ['binary', frame(BINARY, 'x')]]) {
    yield { name: `${what} within another message`, send: [first('{'), bytes], expect: ['close 1002'] };
    yield { name: `${what} behind two fragments`, send: [first('{'), middle('"'), bytes], expect: ['close 1002'] };
  }
}

// Complete characters at the limits of each length.
const VALID = {
  'κόσμε': 'κόσμε', 'two bytes, first': '\u0080', 'two bytes, last': '\u07ff', 'three bytes, first': '\u0800',
  'three bytes, last': '\uffff', 'not a character U+FFFE': '\ufffe', 'before the surrogates': '\ud7ff',
  'behind the surrogates': '\ue000', 'replacement': '\ufffd', 'four bytes, first': '\u{10000}',
  'four bytes, last': '\u{10ffff}', 'not a character U+1FFFE': '\u{1fffe}', 'delete': '\u007f', 'mixed': 'aé€😀z',
  'byte order mark': '\ufeff',
};
// Bytes that no UTF-8 text contains.
const INVALID = {
  'continuation 80': [0x80], 'continuation bf': [0xbf], 'continuations': [0x80, 0xbf, 0x80], 'c0': [0xc0, 0x80],
  'c1': [0xc1, 0xbf], 'overlong two bytes': [0xc0, 0xaf], 'overlong three bytes': [0xe0, 0x80, 0xaf],
  'overlong three bytes, last': [0xe0, 0x9f, 0xbf], 'overlong four bytes': [0xf0, 0x80, 0x80, 0xaf],
  'overlong four bytes, last': [0xf0, 0x8f, 0xbf, 0xbf], 'surrogate d800': [0xed, 0xa0, 0x80],
  'surrogate dbff': [0xed, 0xaf, 0xbf], 'surrogate dc00': [0xed, 0xb0, 0x80], 'surrogate dfff': [0xed, 0xbf, 0xbf],
  'a pair of surrogates': [0xed, 0xa0, 0x80, 0xed, 0xb0, 0x80], 'above U+10FFFF': [0xf4, 0x90, 0x80, 0x80],
  'f5': [0xf5, 0x80, 0x80, 0x80], 'five bytes': [0xf8, 0x88, 0x80, 0x80, 0x80],
  'six bytes': [0xfc, 0x84, 0x80, 0x80, 0x80, 0x80], 'fe': [0xfe], 'ff': [0xff],
  'two bytes cut': [0xc3, 0x28], 'three bytes cut at two': [0xe2, 0x82, 0x28], 'three bytes cut at one': [0xe2, 0x28, 0xa1],
  'four bytes cut at one': [0xf0, 0x28, 0x8c, 0xbc], 'four bytes cut at two': [0xf0, 0x90, 0x28, 0xbc],
  'four bytes cut at three': [0xf0, 0x9f, 0x98, 0x28], 'latin-1': [0x41, 0xe9, 0x42], 'utf-16': [0xff, 0xfe, 0x41, 0x00],
};

function* utf8() {
  for (const [name, text] of Object.entries(VALID)) {
    const message = echo(text);
    const expect = [`echo ${text}`];
    yield { name: `valid: ${name}`, send: [frame(TEXT, message)], expect };
    yield { name: `valid: ${name}, octet by octet`, send: octets(frame(TEXT, message)), expect };
    yield { name: `valid: ${name}, a fragment an octet`, send: [fragments(TEXT, message, 1)], expect };
    yield { name: `valid: ${name}, pings within its characters`, send: [fragments(TEXT, message, 1, frame(PING))],
      expect: [...Array(message.length - 1).fill('PONG '), ...expect] };
  }
  for (const [name, bytes] of Object.entries(INVALID)) {
    const bad = Buffer.from(bytes);
    const message = Buffer.concat([Buffer.from('{"req":"a'), bad, Buffer.from('z"}')]);
    yield { name: `invalid: ${name}`, send: [frame(TEXT, message)], expect: ['close 1007'] };
    yield { name: `invalid: ${name}, alone`, send: [frame(TEXT, bad)], expect: ['close 1007'] };
    yield { name: `invalid: ${name}, octet by octet`, send: octets(frame(TEXT, message)), expect: ['close 1007'] };
    yield { name: `invalid: ${name}, a fragment an octet`, send: [fragments(TEXT, message, 1)], expect: ['close 1007'] };
    // Without the rest, so that only a server that checks immediately can know.
    const soon = Buffer.concat([Buffer.from('{"req":"a'), bad, Buffer.from('z')]);
    yield { name: `invalid: ${name}, detected immediately in a frame`, send: [frame(TEXT, soon, { announced: 100_000 })], expect: ['close 1007'] };
    yield { name: `invalid: ${name}, detected immediately in a fragment`, send: [frame(TEXT, soon, { fin: false })], expect: ['close 1007'] };
  }
  for (const [name, text] of [['two bytes', 'é'], ['three bytes', '€'], ['four bytes', '😀']]) {
    const whole = Buffer.from(text);
    for (let kept = 1; kept < whole.length; kept++) {
      const cut = Buffer.concat([Buffer.from('{}'), whole.subarray(0, kept)]);
      yield { name: `${name}, ${kept} of them at the end`, send: [frame(TEXT, cut)], expect: ['close 1007'] };
      yield { name: `${name}, ${kept} of them at the end of fragments`,
        send: [frame(TEXT, cut, { fin: false }), frame(CONTINUATION)], expect: ['close 1007'] };
    }
  }
  yield { name: 'binary need not be text', protocol: PROTO, send: [frame(BINARY, protoPing(3, 200))], expect: ['pong 3'] };
  yield { name: 'a NUL in a text', send: [frame(TEXT, '{"type":"ping","t":1}\0')], expect: ['error bad_frame'] };
}

function* closing() {
  for (const code of [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 3000, 3999, 4000, 4999]) {
    yield { name: `close ${code}`, send: [closeFrame(code)], expect: [`close ${code}`] };
    yield { name: `close ${code} with a reason`, send: [closeFrame(code, 'because')], expect: [`close ${code}`] };
  }
  for (const code of [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999]) {
    yield { name: `close ${code}, which must not be sent`, send: [closeFrame(code)], expect: ['close 1002'] };
  }
  // Registered after the RFC, and not known to all libraries.
  yield { name: 'close 1014', send: [closeFrame(1014)], expect: [['close 1014', 'close 1002']] };
  yield { name: 'close without a code', send: [closeFrame()], expect: [['close 1000', 'close empty']] };
  yield { name: 'close with one byte', send: [frame(CLOSE, '\x03')], expect: ['close 1002'] };
  yield { name: 'close, octet by octet', send: octets(closeFrame(1000, 'because')), expect: ['close 1000'] };
  yield { name: 'close with the longest reason', send: [closeFrame(1000, 'r'.repeat(123))], expect: ['close 1000'] };
  yield { name: 'close with a longer reason', send: [closeFrame(1000, 'r'.repeat(124))], expect: ['close 1002'] };
  yield { name: 'close with a reason of characters', send: [closeFrame(1000, 'κόσμε 😀')], expect: ['close 1000'] };
  for (const [name, bytes] of Object.entries(INVALID)) {
    yield { name: `close with a reason that is not text: ${name}`, send: [closeFrame(1000, Buffer.from(bytes))],
      expect: [['close 1002', 'close 1007']] };
  }
  yield { name: 'message, then close', send: [frame(TEXT, ping(1)), closeFrame(1000)], expect: ['pong 1', 'close 1000'] };
  yield { name: 'close, then a message', send: [closeFrame(1000), frame(TEXT, ping(1))], expect: ['close 1000'] };
  yield { name: 'close, then a ping', send: [closeFrame(1000), frame(PING)], expect: ['close 1000'] };
  yield { name: 'close twice', send: [closeFrame(1000), closeFrame(1001)], expect: ['close 1000'] };
  yield { name: 'close, then what breaks the rules', send: [closeFrame(1000), frame(3, 'x', { rsv: 7 })], expect: ['close 1000'] };
  yield { name: 'close between fragments', send: [frame(TEXT, '{', { fin: false }), closeFrame(1000)], expect: ['close 1000'] };
  yield { name: 'ping and close in one packet', send: [Buffer.concat([frame(PING), closeFrame(4000)])], expect: ['PONG ', 'close 4000'] };
  yield { name: 'a large message, then close', send: [frame(TEXT, ping(1, 256 << 10)), closeFrame(1000)], expect: ['pong 1', 'close 1000'] };
  yield { name: 'three messages that are none', send: Array(3).fill(frame(TEXT, '{')), expect: [...Array(3).fill('error bad_frame'), 'close 1008'] };
}

function* limits() {
  for (const size of [64 << 10, 256 << 10, MIB - 1, MIB]) {
    yield { name: `text of ${size} bytes`, send: [frame(TEXT, ping(1, size))], expect: ['pong 1'] };
    yield { name: `binary of ${size} bytes`, protocol: PROTO, send: [frame(BINARY, protoPing(1, size))], expect: ['pong 1'] };
  }
  for (const size of [MIB + 1, 2 * MIB]) {
    yield { name: `text of ${size} bytes`, send: [frame(TEXT, ping(1, size))], expect: ['close 1009'] };
    yield { name: `text of ${size} bytes in fragments`, send: [fragments(TEXT, ping(1, size), 65_536)], expect: ['close 1009'] };
  }
  for (const announced of [BigInt(MIB) + 1n, 1n << 31n, 1n << 32n, 1n << 62n, (1n << 63n) - 1n]) {
    yield { name: `${announced} bytes announced`, send: [frame(TEXT, 'x', { announced })], expect: ['close 1009'] };
    yield { name: `${announced} bytes announced behind a fragment`,
      send: [frame(TEXT, '{', { fin: false }), frame(CONTINUATION, 'x', { announced })], expect: ['close 1009'] };
  }
  for (const announced of [1n << 63n, (1n << 64n) - 1n]) {
    yield { name: `${announced} bytes announced`, send: [frame(TEXT, 'x', { announced })], expect: [['close 1002', 'close 1009']] };
  }
  for (const size of [64, 256, 1024, 4096, 16_384, 65_536, 262_144]) {
    yield { name: `1 MiB of text in fragments of ${size}`, send: [fragments(TEXT, ping(1, MIB), size)], expect: ['pong 1'] };
    yield { name: `1 MiB of binary in fragments of ${size}`, protocol: PROTO, send: [fragments(BINARY, protoPing(1, MIB), size)], expect: ['pong 1'] };
  }
  for (const size of [64, 128, 256, 512, 1024, 2048]) {
    yield { name: `64 KiB of text in packets of ${size}`, send: chopped(frame(TEXT, ping(1, 65_536)), size), expect: ['pong 1'] };
  }
  for (const size of [0, 64, 256, 1024, 4096]) {
    yield { name: `500 texts of ${size} bytes`, send: Array.from({ length: 500 }, (_, i) => frame(TEXT, ping(i, size))),
      expect: Array.from({ length: 500 }, (_, i) => `pong ${i}`) };
  }
  // 10: automatic fragmentation by a library.
  yield { name: '64 KiB in fragments of 1300', send: [fragments(TEXT, ping(1, 65_536), 1300)], expect: ['pong 1'] };
}

export const SECTIONS = {
  '1 framing': [...framing()],
  '2 pings and pongs': [...pings()],
  '3 reserved bits': [...reserved()],
  '4 opcodes': [...opcodes()],
  '5 fragmentation': [...fragmentation()],
  '6 UTF-8': [...utf8()],
  '7 closing': [...closing()],
  '9 and 10 limits and large messages': [...limits()],
};
