"""What W8 compares: servers between clients and an OpenAI-compatible one. Each starts its processes before the mock
server, which is the same for all."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from peers import PEERS, Target
from processes import HOST, children_of, free_ports

CONFIGS = PEERS / "upstream_proxies"


@dataclass(frozen=True)
class UpstreamPeer:
    name: str
    title: str
    start: object  # (stack, arguments of the driver, port of the mock server) -> Target
    available: object = lambda args: True
    most_streams: int = 20_000  # more than this saturate it
    fewer: bool = False         # at the smallest load: run with most_streams of its streams instead of not at all
    open_rate: int = 20_000     # connections per second; more than this saturate it


def _program(args, name):
    """A program of a Python package, which run.sh installs into an environment of its own."""
    return Path(args.cache) / f"bench-{name}" / "bin" / name


def _is_installed(name):
    return lambda args: bool(args.cache) and (Path(args.cache) / f"bench-{name}" / "installed").exists()


def _config(stack, name, port, mock):
    """Writes a configuration with its ports and its folder."""
    folder = stack.logs / name.split(".")[0]
    folder.mkdir(exist_ok=True)
    text = (CONFIGS / name).read_text()
    for mark, value in (("@PORT@", port), ("@MOCK@", mock), ("@DIR@", folder)):
        text = text.replace(mark, str(value))
    path = folder / name
    path.write_text(text)
    return folder, path


def _direct(_stack, _args, mock):
    return Target("chat", mock, {})


def _nginx(stack, _args, mock):
    port, = free_ports(1)
    folder, config = _config(stack, "nginx.conf", port, mock)
    pid = stack.start("nginx", ["nginx", "-p", folder, "-c", config], port)
    return Target("chat", port, {"nginx": children_of(pid)})


def _haproxy(stack, _args, mock):
    port, = free_ports(1)
    _, config = _config(stack, "haproxy.cfg", port, mock)
    pid = stack.start("haproxy", ["haproxy", "-db", "-f", config], port)
    return Target("chat", port, {"haproxy": children_of(pid)})


def _vllm_router(stack, args, mock):
    port, metrics = free_ports(2)
    pid = stack.start("vllm-router", [
        _program(args, "vllm-router"), "--host", HOST, "--port", port, "--worker-urls", f"http://{HOST}:{mock}",
        "--policy", "round_robin", "--max-concurrent-requests", 20_000, "--prometheus-port", metrics,
        "--log-level", "warning"], port)
    return Target("chat", port, {"vllm-router": children_of(pid)})


def _litellm(stack, args, mock):
    port, = free_ports(1)
    folder, config = _config(stack, "litellm.yaml", port, mock)
    pid = stack.start("litellm", [
        _program(args, "litellm"), "--config", config, "--host", HOST, "--port", port, "--num_workers", 1,
        "--telemetry", "False"], port, env={"LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True",
                                            "HOME": str(folder)}, seconds=120)
    return Target("chat", port, {"litellm": children_of(pid)})


def _runnel(binary, transport):
    def start(stack, args, mock):
        grpc, admin, port, bridge_admin = free_ports(4)
        service = stack.start("runnel-inference", [
            args.build / "bin/runnel-inference", "--engine=upstream", f"--upstream_url=http://{HOST}:{mock}/v1",
            "--upstream_streams=4096", f"--listen={HOST}:{grpc}", f"--admin_listen={HOST}:{admin}",
            "--drain_timeout=1s", "--log_level=warn"], grpc, admin)
        bridge = stack.start(binary, [
            args.build / "bin" / binary, f"--listen={HOST}:{port}", f"--admin_listen={HOST}:{bridge_admin}",
            f"--inference={HOST}:{grpc}", "--io_threads=1", "--drain_timeout=1s", "--log_level=warn"],
            port, bridge_admin)
        return Target(transport, port, {"service": [service], "bridge": [bridge]})

    return start


ALL = [
    UpstreamPeer("up-direct", "the mock server itself, nothing between", _direct),
    UpstreamPeer("up-nginx", "nginx `proxy_pass`, `proxy_buffering off`", _nginx, lambda args: shutil.which("nginx")),
    UpstreamPeer("up-haproxy", "HAProxy", _haproxy, lambda args: shutil.which("haproxy")),
    UpstreamPeer("up-vllm-router", "vllm-router 0.1.17", _vllm_router, _is_installed("vllm-router")),
    UpstreamPeer("up-litellm", "LiteLLM proxy, 30 streams", _litellm, _is_installed("litellm"),
                 most_streams=30, fewer=True, open_rate=10),
    UpstreamPeer("up-sse", "**Runnel, SSE**, native", _runnel("runnel-sse", "sse")),
    UpstreamPeer("up-chat", "**Runnel, SSE**, chat completions", _runnel("runnel-sse", "chat")),
    UpstreamPeer("up-ws", "**Runnel, WebSocket**, JSON", _runnel("runnel-ws", "ws")),
]
BY_NAME = {peer.name: peer for peer in ALL}
