"""The store of a shared log, and what it adds to a row."""

import shutil
from pathlib import Path

from processes import HOST, free_ports
from report import median, number

SERVERS = {
    "redis": ("Redis, no persistence", ("--save", "", "--appendonly", "no")),
    "redis-aof": ("Redis, AOF everysec", ("--save", "", "--appendonly", "yes", "--appendfsync", "everysec")),
}
# Goals as ratios to --log=memory in the same round, and for the store in us of CPU per event.
SERVICE_GOAL = {"W1": 1.25, "W1s": 1.3}
STORE_GOAL = {"W1": 2.6, "W1s": 1.6}
# Milliseconds that the store adds to the delay, p50 and p99.
DELAY_GOAL = {"W1": (0.15, 0.5), "W1s": (1.5, 5)}

SERVICE = ("processes", "service", "cpu_us_per_event")
STORE = ("processes", "store", "cpu_us_per_event")


def available(_):
    return shutil.which("redis-server") is not None


def start(stack, kind):
    """Starts a store; returns the flag of the service and the pid."""
    port, = free_ports(1)
    folder = Path(stack.logs) / "store"
    folder.mkdir(exist_ok=True)
    pid = stack.start("redis-server", [
        "redis-server", "--bind", HOST, "--port", port, "--dir", folder, "--maxmemory", "2gb",
        "--maxmemory-policy", "noeviction", *SERVERS[kind][1]], port)
    return f"--log=redis://{HOST}:{port}", pid


def _pairs(results, workload, transport, kind):
    """(with the store, in memory) of each round."""
    return list(zip(results.get((workload, f"{transport}-{kind}"), []), results.get((workload, transport), [])))


def _middle(values):
    values = sorted(value for value in values if value is not None)
    return values[len(values) // 2] if values else None


def _ratio(pairs, *path):
    both = ((median([mine], *path), median([base], *path)) for mine, base in pairs)
    return _middle(a / b for a, b in both if a is not None and b)


def _added_ms(pairs, quantile):
    both = ((median([mine], "delay_us", quantile), median([base], "delay_us", quantile)) for mine, base in pairs)
    return _middle((a - b) / 1000 for a, b in both if a is not None and b is not None)


HEAD = ("| | service us/event | x memory | bridge us/event | x memory | store us/event | added p50 ms | added p99 ms |\n"
        "|---|---|---|---|---|---|---|---|")


def table(rows, results):
    """What the shared log costs beside --log=memory; empty without such rows."""
    lines = []
    for workload in dict.fromkeys(workload.name for workload, _ in rows):
        for transport in ("sse", "ws"):
            for kind, (title, _) in SERVERS.items():
                pairs = _pairs(results, workload, transport, kind)
                if not pairs:
                    continue
                mine = [pair[0] for pair in pairs]
                bridge = ("processes", "bridge", "cpu_us_per_event")
                lines.append("| " + " | ".join([
                    f"{workload}, {transport}, {title}", number(median(mine, *SERVICE), 2),
                    number(_ratio(pairs, *SERVICE), 2, "x"), number(median(mine, *bridge), 2),
                    number(_ratio(pairs, *bridge), 2, "x"), number(median(mine, *STORE), 2),
                    number(_added_ms(pairs, "p50"), 2), number(_added_ms(pairs, "p99"), 2)]) + " |")
    if not lines:
        return ""
    goals = [line for workload in SERVICE_GOAL for line in _goals(results, workload)]
    text = "**The shared log against `--log=memory`**\n\n" + HEAD + "\n" + "\n".join(lines) + "\n"
    if goals:
        text += "\n| what | bar | measured | |\n|---|---|---|---|\n" + "\n".join(goals) + "\n"
    return text


def _goals(results, workload):
    pairs = _pairs(results, workload, "sse", "redis")
    persistent = _pairs(results, workload, "sse", "redis-aof")
    store = median([mine for mine, _ in pairs], *STORE)
    aof = median([mine for mine, _ in persistent], *STORE)
    p50, p99 = DELAY_GOAL[workload]
    for what, value, limit, unit in (
            ("service with the shared log against memory", _ratio(pairs, *SERVICE), SERVICE_GOAL[workload], "x"),
            ("store per event", store, STORE_GOAL[workload], " us"),
            ("store with AOF everysec against none", aof / store if aof and store else None, 1.5, "x"),
            ("added p50", _added_ms(pairs, "p50"), p50, " ms"),
            ("added p99", _added_ms(pairs, "p99"), p99, " ms")):
        if value is not None:
            yield (f"| {what}, {workload} | <= {limit:g}{unit} | {value:.2f}{unit} | "
                   f"{'met' if value <= limit else 'NOT met'} |")
