"""Medians of the runs as Markdown."""

import os
import platform
import statistics


def median(runs, *path):
    """The median of the number under `path` in each run; None if no run has it."""
    values = []
    for run in runs:
        value = run
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        if value is not None:
            values.append(value)
    return statistics.median(values) if values else None


def ratio(results, workload, peer, other, *path):
    """The median over the rounds of the ratio of a number of `peer` to that of `other` in the same round."""
    both = zip(results.get((workload, peer), []), results.get((workload, other), []))
    ratios = []
    for mine, theirs in both:
        a, b = median([mine], *path), median([theirs], *path)
        if a is not None and b:
            ratios.append(a / b)
    return statistics.median(ratios) if ratios else None


CPU = ("processes", "bridge", "cpu_us_per_event")


def number(value, digits=1, suffix=""):
    return "-" if value is None else f"{value:,.{digits}f}{suffix}"


def state_of(runs):
    """Whether every event arrived, for each run."""
    counts = {key: sum(run.get(key, 0) for run in runs) for key in ("lost", "duplicated", "reordered", "broken")}
    if all(run["good"] for run in runs):
        return "0"
    bad = [f"{count} {key}" for key, count in counts.items() if count]
    return ", ".join(bad) or "did not run"


def row(results, workload, peer):
    runs = results[workload.name, peer.name]
    delay = lambda key: median(runs, "delay_us", key)
    events, seconds = median(runs, "events"), median(runs, "seconds")
    cells = [
        peer.title,
        number(median(runs, *CPU), 2),
        number(ratio(results, workload.name, peer.name, "floor", *CPU), 2, "x"),
        number(median(runs, "processes", "service", "cpu_us_per_event"), 2),
        number(median(runs, "processes", "bridge", "kib_per_stream")),
        number(delay("p50"), 0), number(delay("p99"), 0), number(delay("p999"), 0),
        number(events / seconds if events and seconds else None, 0),
        number(median(runs, "processes", "bridge", "switches_per_event"), 2),
        number(median(runs, "processes", "bridge", "threads"), 0),
        state_of(runs),
    ]
    return "| " + " | ".join(cells) + " |"


HEAD = ("| | us CPU/event | x floor | service us/event | KiB/stream | p50 us | p99 us | p99.9 us | events/s | switches/event "
        "| threads | lost, twice, disordered |\n|---|---|---|---|---|---|---|---|---|---|---|---|")


def tables(rows, results):
    rounds = max(len(runs) for runs in results.values())
    parts = [f"{os.cpu_count()} cores ({platform.machine()}), everything on loopback; medians of {rounds} interleaved rounds. CPU is user and "
             "system time of the process that holds the connections; latency is from the append to the client."]
    for workload in dict.fromkeys(workload for workload, _ in rows):
        lines = [row(results, workload, peer) for each, peer in rows if each is workload]
        parts.append(f"**{workload.name}: {workload.title}**\n\n{HEAD}\n" + "\n".join(lines))
    bars = bar_table(rows, results)
    if bars:
        parts.append("**The bars**\n\n| what | bar | measured | |\n|---|---|---|---|\n" + "\n".join(bars))
    return "\n\n".join(parts) + "\n"


def bar_table(rows, results):
    names = {(workload.name, peer.name) for workload, peer in rows}
    lines = []

    def add(what, value, limit, digits=2, unit="x"):
        if value is not None:
            lines.append(f"| {what} | <= {limit:g}{unit} | {value:.{digits}f}{unit} | {'met' if value <= limit else 'NOT met'} |")

    for workload, sse, websocket in (("W1", 1.6, 2.0), ("W2", 1.75, 2.3), ("W1s", 1.2, 1.3)):
        add(f"SSE bridge CPU against the floor, {workload}", ratio(results, workload, "sse", "floor", *CPU), sse)
        add(f"WebSocket bridge CPU against the floor, {workload}", ratio(results, workload, "ws", "floor", *CPU), websocket)
    memory = ("processes", "bridge", "kib_per_stream")
    for ours, kind in (("sse", "SSE"), ("ws", "WebSocket")):
        for rival, cpu, kib in ((f"node-{ours}", 1 / 3.5, 1 / 8), (f"nchan-{ours}", 3 / 4, 1 / 3)):
            add(f"{kind} CPU against {rival}, W1", ratio(results, "W1", ours, rival, *CPU), round(cpu, 3), 3)
            add(f"{kind} memory against {rival}, W1", ratio(results, "W1", ours, rival, *memory), round(kib, 3), 3)
        runs = results.get(("W1", ours), [])
        add(f"{kind} KiB a stream, W1", median(runs, *memory), 5 if ours == "sse" else 8, 1, "")
    service = service_against_floor(results, "W1")
    add("service CPU through Link against the floor, W1", service, 0.9)
    if ("W1", "floor") in names:
        floor = median(results["W1", "floor"], "delay_us", "p99")
        for ours in ("sse", "ws"):
            mine = median(results.get(("W1", ours), []), "delay_us", "p99")
            if mine is not None and floor is not None:
                add(f"{ours} p99 above the floor's, W1", (mine - floor) / 1000, 1, 2, " ms")
    for ours in ("sse", "ws"):
        few, many = (median(results.get((name, ours), []), *CPU) for name in ("scale-100", "scale-10000"))
        if few and many:
            add(f"{ours} CPU an event, 10,000 streams against 100 at one rate", many / few, 1.25)
        few, many = (ratio(results, name, ours, "floor", *CPU) for name in ("scale-100", "scale-10000"))
        if few and many:
            add("the same as multiples of the floor", many / few, 1.25)
        calm, stalled = (median(results.get((name, ours), []), "delay_us", "p99") for name in ("W1", "W6"))
        if calm and stalled:
            add(f"{ours} p99 of the others beside a stalled reader, W6 against W1", stalled / calm, 1.05)
    return lines


def service_against_floor(results, workload):
    ratios = []
    for mine, floor in zip(results.get((workload, "sse"), []), results.get((workload, "floor"), [])):
        service, base = median([mine], "processes", "service", "cpu_us_per_event"), median([floor], *CPU)
        if service is not None and base:
            ratios.append(service / base)
    return statistics.median(ratios) if ratios else None
