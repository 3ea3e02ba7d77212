#!/usr/bin/env python3
"""Sends one prompt to the WebSocket bridge and prints each message as it arrives.

    deploy/local/ws.py "What is a runnel?"
    deploy/local/ws.py --resume gen_...:17

Uses only Python's standard library, so no WebSocket client has to be installed. Exit code: 0 after `done`, 1 after
`failed`, an error or a lost connection. --url accepts only ws://HOST:PORT/PATH.
"""

import argparse
import base64
import json
import os
import signal
import socket
import struct
import sys
import urllib.parse

TEXT, CLOSE, PING, PONG = 1, 8, 9, 10


class Lost(Exception):
    """The connection ended before the generation."""


def read_exactly(stream, size):
    data = stream.read(size)
    if len(data) != size:
        raise Lost("the connection was closed")
    return data


def connect(url):
    parts = urllib.parse.urlsplit(url)
    sock = socket.create_connection((parts.hostname, parts.port or 80), timeout=60)
    stream = sock.makefile("rb")
    sock.sendall(
        f"GET {parts.path or '/'} HTTP/1.1\r\nHost: {parts.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Protocol: runnel.v1\r\n\r\n".encode()
    )
    status = stream.readline().decode(errors="replace").strip()
    headers = {}
    while line := stream.readline().strip():
        name, _, value = line.decode(errors="replace").partition(":")
        headers[name.lower()] = value.strip()
    if " 101 " not in status + " ":
        raise Lost(f"{status} {stream.read(int(headers.get('content-length', 0))).decode(errors='replace')}")
    return sock, stream


def send(sock, opcode, data):
    """Sends one frame. The protocol requires clients to mask their frames."""
    size = len(data)
    if size < 126:
        head = struct.pack("!BB", 0x80 | opcode, 0x80 | size)
    elif size < 65536:
        head = struct.pack("!BBH", 0x80 | opcode, 0x80 | 126, size)
    else:
        head = struct.pack("!BBQ", 0x80 | opcode, 0x80 | 127, size)
    mask = os.urandom(4)
    sock.sendall(head + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(data)))


def receive_frame(stream):
    first, second = read_exactly(stream, 2)
    size = second & 0x7F
    if size == 126:
        (size,) = struct.unpack("!H", read_exactly(stream, 2))
    elif size == 127:
        (size,) = struct.unpack("!Q", read_exactly(stream, 8))
    return bool(first & 0x80), first & 0x0F, read_exactly(stream, size)


def messages(sock, stream):
    """Yields the server's messages; replies to pings."""
    message = b""
    while True:
        final, opcode, data = receive_frame(stream)
        if opcode == PING:
            send(sock, PONG, data)
        elif opcode == CLOSE:
            code = struct.unpack("!H", data[:2])[0] if len(data) >= 2 else 1005
            raise Lost(f"closed by the server: {code} {data[2:].decode(errors='replace')}")
        elif opcode != PONG:
            message += data
            if final:
                yield message.decode()
                message = b""


def request(args):
    if args.resume:
        generation, _, seq = args.resume.partition(":")
        return {"type": "resume", "req": "r1", "gen": generation, "after": int(seq or 0)}
    body = {"messages": [{"role": "user", "content": args.prompt}], "max_tokens": args.max_tokens}
    return {"type": "generate", "req": "g1", "body": body}


def run(args):
    sock, stream = connect(args.url)
    send(sock, TEXT, json.dumps(request(args)).encode())
    for message in messages(sock, stream):
        print(message, flush=True)
        kind = json.loads(message).get("type")
        if kind in ("done", "failed", "error"):
            send(sock, CLOSE, struct.pack("!H", 1000))
            return 0 if kind == "done" else 1
    return 1


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prompt", nargs="?", default="What is a runnel?")
    parser.add_argument("--url", default="ws://127.0.0.1:8081/v1/ws")
    parser.add_argument("--resume", metavar="GEN:SEQ", help="resume this generation after this event")
    parser.add_argument("--max-tokens", type=int, default=128)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # so that `| head` ends it silently
    try:
        sys.exit(run(parser.parse_args()))
    except (Lost, OSError, ValueError) as error:
        sys.exit(f"ws.py: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
