"""The compared servers: each peer starts its processes and returns how the load client reaches them."""

import shutil
from dataclasses import dataclass, field
from pathlib import Path

import stores
from processes import HOST, children_of, free_ports

ROOT = Path(__file__).resolve().parents[3]
PEERS = ROOT / "tests/bench/peers"


@dataclass
class Target:
    """The address of a started peer and the processes to measure."""

    transport: str
    port: int
    groups: dict  # name -> pids; the table shows "bridge"
    flags: list = field(default_factory=list)
    feeder: list = None  # a command to run together with the load client, with its flags


@dataclass(frozen=True)
class Peer:
    name: str
    title: str
    start: object  # (stack, build folder) -> Target
    available: object = lambda build: True
    most_streams: int = 20_000


def _service(stack, build, *flags):
    port, admin = free_ports(2)
    pid = stack.start("runnel-inference", [
        build / "bin/runnel-inference", "--engine=scripted", f"--listen={HOST}:{port}",
        f"--admin_listen={HOST}:{admin}", "--drain_timeout=1s", "--log_level=warn", *flags], port, admin)
    return port, pid


def _floor(stack, build):
    port, = free_ports(1)
    return Target("sse", port, {"bridge": [stack.start("floor", [build / "bin/bench-floor", port], port)]})


def _runnel(binary, transport, store=None):
    def start(stack, build):
        groups, flags = {}, []
        if store is not None:
            flag, pid = stores.start(stack, store)
            groups["store"], flags = [pid], [flag]
        grpc, service = _service(stack, build, *flags)
        port, admin = free_ports(2)
        bridge = stack.start(binary, [
            build / "bin" / binary, f"--listen={HOST}:{port}", f"--admin_listen={HOST}:{admin}",
            f"--inference={HOST}:{grpc}", "--io_threads=1", "--drain_timeout=1s", "--log_level=warn"], port, admin)
        return Target(transport, port, {"bridge": [bridge], "service": [service], **groups})

    return start


def _service_alone(stack, build):
    port, pid = _service(stack, build)
    return Target("grpc", port, {"bridge": [pid], "service": [pid]})


def _node(transport):
    def start(stack, build):
        grpc, service = _service(stack, build)
        port, = free_ports(1)
        bridge = stack.start("node", ["node", PEERS / "node/bridge.mjs", port, f"{HOST}:{grpc}"], port,
                             env={"NODE_ENV": "production"})
        return Target(transport, port, {"bridge": [bridge], "service": [service]})

    return start


def _go(transport):
    def start(stack, build):
        grpc, service = _service(stack, build)
        port, = free_ports(1)
        bridge = stack.start("go", [build / "bench/go-bridge", port, f"{HOST}:{grpc}"], port)
        return Target(transport, port, {"bridge": [bridge], "service": [service]})

    return start


def _httplib(stack, build):
    grpc, service = _service(stack, build)
    port, = free_ports(1)
    bridge = stack.start("httplib", [build / "bin/bench-httplib", port, f"{HOST}:{grpc}"], port)
    return Target("sse", port, {"bridge": [bridge], "service": [service]})


def _nchan(transport):
    def start(stack, build):
        port, = free_ports(1)
        folder = stack.logs / "nginx"
        folder.mkdir(exist_ok=True)
        config = (PEERS / "nchan/nginx.conf").read_text().replace("@PORT@", str(port)).replace("@DIR@", str(folder))
        (folder / "nginx.conf").write_text(config)
        pid = stack.start("nginx", ["nginx", "-p", folder, "-c", folder / "nginx.conf"], port)
        return Target(transport, port, {"bridge": children_of(pid)}, flags=["--path=/sub/"],
                      feeder=[build / "bin/bench-nchan-feeder", port])

    return start


def _has_nchan(_):
    return shutil.which("nginx") and Path("/usr/lib/nginx/modules/ngx_nchan_module.so").exists()


ALL = [
    Peer("floor", "floor: tokens made in the process, epoll, one send() an event", _floor),
    Peer("sse", "**Runnel, SSE**", _runnel("runnel-sse", "sse")),
    Peer("ws", "**Runnel, WebSocket**, JSON", _runnel("runnel-ws", "ws")),
    Peer("wsproto", "**Runnel, WebSocket**, Protobuf", _runnel("runnel-ws", "wsproto")),
    Peer("poll", "Runnel, long polling", _runnel("runnel-sse", "poll")),
    *(Peer(f"{transport}-{store}", f"Runnel, {title}, shared log in {server}", _runnel(binary, transport, store),
           stores.available)
      for transport, title, binary in (("sse", "SSE", "runnel-sse"), ("ws", "WebSocket", "runnel-ws"))
      for store, (server, _) in stores.SERVERS.items()),
    Peer("grpc", "Runnel's service alone, gRPC `Generate`", _service_alone),
    Peer("nchan-sse", "nginx + nchan, SSE, fed by pipelined publishing", _nchan("sse-get"), _has_nchan),
    Peer("nchan-ws", "nginx + nchan, WebSocket", _nchan("ws-get"), _has_nchan),
    Peer("go-sse", "Go: grpc-go + net/http, SSE", _go("sse"), lambda build: (build / "bench/go-bridge").exists()),
    Peer("go-ws", "Go: grpc-go + coder/websocket", _go("ws"), lambda build: (build / "bench/go-bridge").exists()),
    Peer("node-sse", "Node: @grpc/grpc-js + node:http, SSE", _node("sse"),
         lambda build: (PEERS / "node/node_modules").exists()),
    Peer("node-ws", "Node: @grpc/grpc-js + ws", _node("ws"), lambda build: (PEERS / "node/node_modules").exists()),
    Peer("httplib", "cpp-httplib, a thread a connection, blocking gRPC", _httplib,
         lambda build: (build / "bin/bench-httplib").exists(), most_streams=3000),
]
BY_NAME = {peer.name: peer for peer in ALL}
