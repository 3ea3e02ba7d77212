// Requests that no client sends by accident, with the statuses that each may get, for every HTTP port.

/** Classes of statuses for rejected requests; a port may send any status of the class. */
const BAD = [400];
const CODING = [400, 501];
const TOO_LARGE = [431];

const long = (bytes) => 'x'.repeat(bytes);
const SECOND = 'GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n';

/**
 * Rows of {name, bytes, want: statuses}: the port must send one response and close the connection. `head`: the header
 * lines of a valid request to that port after its request line and Host, each with its line end. `early`: statuses of a
 * port that responds to this head before it reads a body.
 */
export function hostileRequests({ target, host = '127.0.0.1', head = '', early = [] }) {
  const begin = `GET ${target} HTTP/1.1\r\nHost: ${host}\r\n${head}`;
  const chunked = `${begin}Transfer-Encoding: chunked\r\n\r\n`;
  const body = [400, 413, 431, ...early];
  const rows = [
    // Beast throws for a field above 64 KiB, and does not limit trailers.
    { name: 'a trailer of 65,535 bytes', bytes: `${chunked}0\r\nA:${'0'.repeat(65535)}\r\n\r\n`, want: body },
    { name: 'a trailer with a name of 65,535 bytes', bytes: `${chunked}0\r\n${long(65535)}:a\r\n\r\n`,
      want: body },
    { name: 'trailers without end', bytes: `${chunked}0\r\n${`A: ${long(1000)}\r\n`.repeat(2000)}`, want: body },
    { name: 'a header field of 70,000 bytes', bytes: `${begin}A: ${long(70000)}\r\n\r\n`, want: TOO_LARGE },
    { name: 'a header field with a name of 70,000 bytes', bytes: `${begin}${long(70000)}: a\r\n\r\n`, want: TOO_LARGE },
    { name: '2 MiB of header lines', bytes: `${begin}${`A: ${long(1000)}\r\n`.repeat(2000)}`, want: TOO_LARGE },
    { name: 'a header line without end', bytes: `${begin}A: ${long(1 << 20)}`, want: TOO_LARGE },
    { name: 'a target of 20,000 bytes', bytes: `GET /${long(20000)} HTTP/1.1\r\nHost: ${host}\r\n\r\n`, want: [414] },
    { name: 'a request line without end', bytes: `GET /${long(1 << 20)}`, want: [400, 414, 431] },
    { name: 'a method without end', bytes: long(1 << 20), want: [400, 414, 431, 501] },
    { name: 'a chunk size without end', bytes: `${chunked}${'0'.repeat(1 << 18)}`, want: body },
    { name: 'a chunk extension without end', bytes: `${chunked}1;a=${long(1 << 18)}`, want: body },
    { name: 'Transfer-Encoding and Content-Length',
      bytes: `${begin}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`, want: BAD },
    { name: 'Transfer-Encoding in HTTP/1.0',
      bytes: `GET ${target} HTTP/1.0\r\nHost: ${host}\r\n${head}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n`, want: BAD },
    { name: 'no Host', bytes: `GET ${target} HTTP/1.1\r\n${head}\r\n`, want: BAD },
    { name: 'two Hosts', bytes: `${begin}Host: ${host}\r\n\r\n`, want: BAD },
    ...['a/b@c', 'a b', 'a:b', '[::1', 'a\\b', 'a\x00b'].map((bad) => ({ name: `Host ${JSON.stringify(bad)}`,
      bytes: `GET ${target} HTTP/1.1\r\nHost: ${bad}\r\n${head}\r\n`, want: BAD })),
    { name: 'a bare LF', bytes: `GET ${target} HTTP/1.1\nHost: ${host}\n\n`, want: BAD },
    { name: 'a blank before the colon', bytes: `${begin}A : b\r\n\r\n`, want: BAD },
    { name: 'a NUL in a field', bytes: `${begin}A: b\x00c\r\n\r\n`, want: BAD },
    { name: 'two Content-Lengths', bytes: `${begin}Content-Length: 1\r\nContent-Length: 2\r\n\r\naa`, want: BAD },
    { name: 'a signed Content-Length', bytes: `${begin}Content-Length: +1\r\n\r\na`, want: BAD },
    { name: 'a Content-Length above 2^64', bytes: `${begin}Content-Length: 99999999999999999999\r\n\r\n`,
      want: [400, 413] },
    { name: 'bytes of TLS', bytes: '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n', want: BAD },
    { name: 'the preface of HTTP/2', bytes: 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', want: [400, 505] },
  ];
  // Bytes that a proxy in front treats as a body must not be a request here.
  for (const coding of ['x', 'xchunked', 'identity', 'gzip', '"chunked"', 'chunked, identity', 'chunked, gzip',
    'gzip, chunked', 'x, chunked', 'chunked, chunked', '']) {
    rows.push({ name: `Transfer-Encoding ${JSON.stringify(coding)}`,
      bytes: `${begin}Transfer-Encoding: ${coding}\r\n\r\n${SECOND}`, want: CODING });
    rows.push({ name: `Transfer-Encoding ${JSON.stringify(coding)} with a Content-Length`,
      bytes: `${begin}Content-Length: 4\r\nTransfer-Encoding: ${coding}\r\n\r\n${SECOND}`, want: CODING });
  }
  return rows;
}

/** Host names that a page could point to the address of a bridge or an admin port that needs no key. */
export const REBOUND_HOSTS = ['evil.example', 'evil.example:80', 'localhost.evil.example', '127.0.0.1.evil.example'];
