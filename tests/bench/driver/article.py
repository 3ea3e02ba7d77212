"""The usual comparison of SSE, WebSocket and polling, measured on one backend."""

import base64
import json
import os
import socket
import statistics
import struct
import subprocess
import threading
import time
from pathlib import Path

import peers
from processes import HOST, Stack

STREAMS, PACE = 500, 20
IDLE = 5000
TRIES = 30  # measurements of each latency; 3 in a smoke run


class Client:
    """One connection of a transport: counts its bytes, and notices when an event has arrived."""

    def __init__(self, transport, port):
        self.transport, self.port = transport, port
        self.sent = self.received = 0
        self.socket = socket.create_connection((HOST, port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""

    def close(self):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)
        self.sent += len(data)

    def read_until(self, mark):
        """Returns the bytes up to the first `mark`, and removes them and `mark` from the buffer."""
        while mark not in self.buffer:
            data = self.socket.recv(65536)
            if not data:
                raise ConnectionError("closed by the server")
            self.received += len(data)
            self.buffer += data
        head, self.buffer = self.buffer.split(mark, 1)
        return head

    def upgrade(self):
        protocol = "runnel.v1.proto" if self.transport == "wsproto" else "runnel.v1"
        key = base64.b64encode(os.urandom(16)).decode()
        self.send(f"GET /v1/ws HTTP/1.1\r\nHost: {HOST}:{self.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                  f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
                  f"Sec-WebSocket-Protocol: {protocol}\r\n\r\n".encode())
        self.read_until(b"\r\n\r\n")

    def frame(self, text):
        payload = text.encode()
        mask = os.urandom(4)
        masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))
        length = bytes([0x80 | len(payload)]) if len(payload) < 126 else b"\xfe" + struct.pack(">H", len(payload))
        self.send(b"\x81" + length + mask + masked)

    def request(self, method, path, body=None, accept="application/json", headers=""):
        data = json.dumps(body).encode() if body is not None else b""
        kind = f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n" if data else ""
        self.send(f"{method} {path} HTTP/1.1\r\nHost: {HOST}:{self.port}\r\nAccept: {accept}\r\n{headers}{kind}\r\n"
                  .encode() + data)

    def response(self):
        """Returns the body of a response with a content-length."""
        head = self.read_until(b"\r\n\r\n").lower()
        length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
        while len(self.buffer) < length:
            data = self.socket.recv(65536)
            self.received += len(data)
            self.buffer += data
        body, self.buffer = self.buffer[:length], self.buffer[length:]
        return json.loads(body)

    def start(self, body):
        """Starts a generation; returns its id once the first delta has arrived."""
        if self.transport == "poll":
            self.request("POST", "/v1/generations", body)
            gen, after = self.response()["id"], 0
            while True:
                self.request("GET", f"/v1/generations/{gen}?after={after}&wait=20")
                events = self.response()["events"]
                if any(event["type"] == "delta" for event in events):
                    return gen
                after = events[-1]["seq"]
        if self.transport == "sse":
            self.request("POST", "/v1/generations", body, "text/event-stream")
        else:
            self.frame(json.dumps({"type": "generate", "req": "r", "body": body}))
        self.read_until(b'"type":"delta"')
        return self.read_until(b'"seq"').split(b'"gen":"')[1].split(b'"')[0].decode()

    def finish(self):
        """Reads to the end of the generation, so that the connection is free."""
        if self.transport == "sse":
            self.read_until(b"\r\n0\r\n\r\n")
        elif self.transport == "ws":
            self.read_until(b'"type":"done"')

    def resume(self, gen, after):
        """Resumes after `after`; returns once an event has arrived."""
        if self.transport == "poll":
            self.request("GET", f"/v1/generations/{gen}?after={after}&wait=20")
            self.response()
        elif self.transport == "sse":
            self.request("GET", f"/v1/generations/{gen}/events", accept="text/event-stream",
                         headers=f"Last-Event-ID: {gen}:{after}\r\n")
            self.read_until(b'"type":"delta"')
        else:
            self.frame(json.dumps({"type": "resume", "req": "r", "gen": gen, "after": after}))
            self.read_until(b'"type":"delta"')


def body(tokens, pace):
    return {"prompt": "go", "max_tokens": 100000, "seed": 1, "metadata": {
        "scripted.tokens": str(tokens), "scripted.tokens_per_second": str(pace), "scripted.first_token_ms": "0"}}


def connect(transport, port):
    client = Client(transport, port)
    if transport.startswith("ws"):
        client.upgrade()
    return client


def median_ms(samples):
    return statistics.median(samples) * 1000


def latencies(transport, port, tries):
    """Times in ms: to the first token on a new connection, on an open one, and from a cut to the next event."""
    fresh, again, recovery = [], [], []
    for _ in range(tries):
        begin = time.perf_counter()
        client = connect(transport, port)
        client.start(body(2, 1000))
        fresh.append(time.perf_counter() - begin)
        client.finish()
        begin = time.perf_counter()
        gen = client.start(body(200, 1000))
        again.append(time.perf_counter() - begin)
        client.close()
        begin = time.perf_counter()
        client = connect(transport, port)
        client.resume(gen, 2)
        recovery.append(time.perf_counter() - begin)
        client.close()
    return {"new_ms": median_ms(fresh), "open_ms": median_ms(again), "recovery_ms": median_ms(recovery)}


def handshake(transport, port):
    """Bytes in both directions until the first event can arrive, without the request's body."""
    client = connect(transport, port)
    if transport.startswith("ws"):
        total = client.sent + client.received
        client.close()
        return total
    request = body(2, 1000)
    client.request("POST", "/v1/generations", request, "text/event-stream" if transport == "sse" else "application/json")
    head = client.read_until(b"\r\n\r\n")
    client.close()
    return client.sent - len(json.dumps(request)) + len(head) + 4


def load(args, transport, target, name, *flags):
    path = args.out / "logs" / f"article-{name}-{transport}.json"
    path.unlink(missing_ok=True)
    pids = ",".join(f"{group}:{'+'.join(map(str, pids))}" for group, pids in target.groups.items())
    subprocess.run([args.build / "bin/runnel-load", f"--transport={transport}", f"--address={HOST}:{target.port}",
                    f"--pids={pids}", f"--json={path}", f"--slack={0.5 if args.quick else 2.5}s", *flags], capture_output=True, check=False)
    return json.loads(path.read_text())


def kernel_kib():
    """Memory of the kernel in slabs and socket buffers."""
    slab = next(int(line.split()[1]) for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("Slab:"))
    tcp = next(line.split() for line in Path("/proc/net/sockstat").read_text().splitlines() if line.startswith("TCP:"))
    return slab + int(tcp[tcp.index("mem") + 1]) * 4


def idle_memory(args, transport, target):
    """KiB per connection with silent open streams: of the bridge, and of the kernel for the server's side."""
    before, samples, done = kernel_kib(), [], threading.Event()

    def sample():
        while not done.wait(0.2):
            samples.append(kernel_kib())

    thread = threading.Thread(target=sample)
    thread.start()
    streams = min(IDLE, 50 if args.quick else IDLE)
    run = load(args, transport, target, "idle", f"--streams={streams}", "--idle", "--window=2s", "--cut")
    done.set()
    thread.join()
    # Both ends of each connection are on this machine.
    kernel = (max(samples, default=before) - before) / streams / 2
    return {"user_kib": run["processes"]["bridge"]["kib_per_stream"], "kernel_kib": kernel}


def measure(args, transport):
    peer = peers.BY_NAME[transport]
    with Stack(args.out / "logs" / f"article-{transport}") as stack:
        target = peer.start(stack, args.build)
        row = {"handshake_bytes": handshake(transport, target.port)}
        if transport != "wsproto":
            row |= latencies(transport, target.port, 3 if args.quick else TRIES)
        streams = 50 if args.quick else STREAMS
        run = load(args, transport, target, "load", f"--streams={streams}", f"--pace={PACE}", f"--window={args.seconds}s")
        events = max(1, run["events"])
        row |= {
            "good": run["good"],
            "bytes_in": run["bytes_in"] / events,
            "bytes_out": run["bytes_out_in_all"] / max(1, run["events_in_all"]) if transport == "poll" else 0,
            "bridge_us": run["processes"]["bridge"]["cpu_us_per_event"],
            "client_us": run["processes"]["client"]["cpu_us_per_event"],
            "delay_p50_us": run["delay_us"]["p50"],
        }
    with Stack(args.out / "logs" / f"article-idle-{transport}") as stack:
        if transport != "poll":
            row |= idle_memory(args, transport, peer.start(stack, args.build))
    print(f"bench: article, {transport}: {'ok' if row['good'] else 'FAILED'}", flush=True)
    return row


def browser_streams(args):
    """Number of streams that a page can have open, by transport; empty without a browser or nginx."""
    script = peers.ROOT / "tests/e2e/browser/stream_limits.mjs"
    done = subprocess.run(["node", script, "20" if args.quick else "300"], capture_output=True, text=True, check=False,
                          env=os.environ | {"RUNNEL_BIN": str(args.build / "bin")})
    if done.returncode != 0:
        print(f"bench: article, skipped the browser: {done.stderr.strip().splitlines()[-1:]}", flush=True)
        return {}
    found = json.loads(done.stdout)
    print("bench: article, browser: ok", flush=True)
    return {"sse": {"browser_http1": found["http1"], "browser_http2": found["http2"]},
            "ws": {"browser_http1": found["websocket"]}}


def run(args):
    results = {transport: measure(args, transport) for transport in ("sse", "ws", "wsproto", "poll")}
    for transport, row in browser_streams(args).items():
        results[transport] |= row
    return results


ROWS = (
    ("bytes of the handshake, both ways", "handshake_bytes", 0),
    ("bytes a token, to the client", "bytes_in", 0),
    ("bytes a token, from the client", "bytes_out", 0),
    ("CPU us a token, bridge", "bridge_us", 2),
    ("CPU us a token, client (C++)", "client_us", 2),
    ("KiB a silent connection, bridge", "user_kib", 1),
    ("KiB a silent connection, kernel", "kernel_kib", 1),
    ("first token on a new connection, ms", "new_ms", 2),
    ("first token on an open connection, ms", "open_ms", 2),
    ("cut to next event, ms", "recovery_ms", 2),
    ("streams in a page of Chromium, HTTP/1.1", "browser_http1", 0),
    ("streams in a page of Chromium, HTTP/2 (nginx)", "browser_http2", 0),
)


def table(results):
    lines = [f"**SSE, WebSocket and polling on one backend** ({STREAMS} streams x {PACE} tokens/s)\n",
             "| | SSE | WebSocket, JSON | WebSocket, Protobuf | long polling |", "|---|---|---|---|---|"]
    for title, key, digits in ROWS:
        cells = [f"{results[name][key]:,.{digits}f}" if key in results[name] else "-"
                 for name in ("sse", "ws", "wsproto", "poll")]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
