"""The loads, as flags of the load client. Those of W8 are in upstream.py."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Workload:
    name: str
    title: str
    streams: int
    flags: tuple
    windowed: bool = True  # measured for --seconds; otherwise over the whole run
    peers: tuple = ()      # default peers; empty: all


FLOOR_AND_US = ("floor", "sse", "ws", "wsproto")
SHARED_LOG = ("sse-redis", "sse-redis-aof", "ws-redis")
FASTEST = FLOOR_AND_US + ("nchan-sse", "nchan-ws", "go-sse", "go-ws", "node-sse", "node-ws")

ALL = [
    Workload("W1", "1,000 streams x 30 tokens/s, spread evenly", 1000, ("--pace=30",)),
    Workload("W1s", "the same, all streams in one step", 1000, ("--pace=30", "--stepped"), peers=FASTEST + SHARED_LOG),
    Workload("W2", "5,000 streams x 10 tokens/s", 5000, ("--pace=10", "--timeout=120s"), peers=FASTEST + SHARED_LOG),
    Workload("W3", "100 streams flat out", 100, ("--pace=1000000", "--tokens=1000000", "--cut"),
             peers=FLOOR_AND_US + ("grpc", "go-sse", "node-sse")),
    Workload("W4", "10,000 idle streams, an event every 30 s each", 10_000,
             ("--pace=0.03333", "--tokens=100", "--cut", "--timeout=240s"),
             peers=FLOOR_AND_US + ("nchan-sse", "go-sse", "go-ws", "node-sse", "node-ws")),
    Workload("W5", "2,000 connects a second, answers of 5 tokens", 10_000,
             ("--open_rate=2000", "--tokens=5", "--pace=1000", "--timeout=120s"), windowed=False,
             peers=FLOOR_AND_US + ("go-sse", "node-sse")),
    Workload("W6", "1,000 streams x 30 tokens/s, one of them stalled", 1000,
             ("--pace=30", "--stalled=1", "--timeout=90s"), peers=FLOOR_AND_US),
    Workload("scale-100", "30,000 events/s from 100 streams", 100, ("--pace=300",), peers=FLOOR_AND_US),
    Workload("scale-1000", "30,000 events/s from 1,000 streams", 1000, ("--pace=30",), peers=FLOOR_AND_US),
    Workload("scale-10000", "30,000 events/s from 10,000 streams", 10_000, ("--pace=3", "--timeout=120s"),
             peers=FLOOR_AND_US),
]
BY_NAME = {workload.name: workload for workload in ALL}
