"""The tables of W8 as Markdown."""

import statistics

import upstream
import upstream_peers
from report import median, number, state_of

# Not on the path between the server and the client.
ENDS = ("mock", "client")
BASE = "up-nginx"


def path_of(run):
    """The measured processes between the server and the client, by name."""
    return {name: process for name, process in run.get("processes", {}).items() if name not in ENDS}


def path_sum(run, key):
    values = [process[key] for process in path_of(run).values()]
    return sum(values) if values else None


def per_request(run):
    """CPU microseconds of the path for one request."""
    cpu = path_sum(run, "cpu_us")
    return None if cpu is None else cpu / run["streams"]


def per_second(run):
    return run["streams"] / run["seconds"] if run.get("seconds") else None


def middle(runs, value):
    values = [value(run) for run in runs if run.get("seconds")]
    values = [each for each in values if each is not None]
    return statistics.median(values) if values else None


def against(runs, others, value, combine):
    """The median over the rounds of a value combined with that of another row in the same round."""
    both = [(value(mine), value(theirs)) for mine, theirs in zip(runs, others)
            if mine.get("seconds") and theirs.get("seconds")]
    values = [combine(mine, theirs) for mine, theirs in both if mine is not None and theirs]
    return statistics.median(values) if values else None


def cpu(run):
    return path_sum(run, "cpu_us_per_event")


def milliseconds(histogram, share):
    return lambda run: run[histogram][share] / 1000 if run[histogram]["count"] else None


def delay(share):
    return milliseconds("delay_us", share)


def first_token(runs):
    """`0.5, 2.1`: p50 and p99."""
    return ", ".join(number(middle(runs, milliseconds("added_first_token_us", share)), 2) for share in ("p50", "p99"))


def ratio_to_base(peers, name, value=cpu):
    return against(peers[name], peers.get(BASE, []), value, lambda mine, theirs: mine / theirs)


def above_direct(peers, name, value):
    return against(peers[name], peers.get("up-direct", []), value, lambda mine, theirs: mine - theirs)


def each_process(runs, key, digits, share=lambda runs: 1):
    """`4.2 + 8.6`, in the order in which the tokens pass."""
    names = path_of(next((run for run in runs if run.get("processes")), {}))
    values = [median(runs, "processes", name, key) for name in sorted(names, reverse=True)]
    return " + ".join(number(value / share(runs), digits) for value in values) or "-"


STREAMS_HEAD = ("| | us CPU/event, each process (service + bridge) | sum | x nginx | KiB/stream | threads | p50 ms | p99 ms "
                "| p99 above direct ms | first token, added p50, p99 ms | events/s | mock us/event | lost, twice, disordered |\n"
                "|---|---|---|---|---|---|---|---|---|---|---|---|---|")
CONNECT_HEAD = ("| | requests/s | us CPU/request, each process (service + bridge) | sum | x nginx | first token, added p50, p99 ms "
                "| connections to the server | lost, twice, disordered |\n|---|---|---|---|---|---|---|---|")


def streams_row(title, peers, name):
    runs = peers[name]
    return [title, each_process(runs, "cpu_us_per_event", 2), number(middle(runs, cpu), 2),
            number(ratio_to_base(peers, name), 2, "x"),
            number(middle(runs, lambda run: path_sum(run, "kib_per_stream"))),
            number(middle(runs, lambda run: path_sum(run, "threads")), 0),
            number(middle(runs, delay("p50")), 2), number(middle(runs, delay("p99")), 2),
            number(above_direct(peers, name, delay("p99")), 2), first_token(runs),
            number(middle(runs, lambda run: run["events"] / run["seconds"]), 0),
            number(median(runs, "processes", "mock", "cpu_us_per_event"), 2), state_of(runs)]


def connect_row(title, peers, name):
    runs = peers[name]
    return [title, number(middle(runs, per_second), 0),
            each_process(runs, "cpu_us", 1, lambda runs: median(runs, "streams")),
            number(middle(runs, per_request), 1), number(ratio_to_base(peers, name, per_request), 2, "x"),
            first_token(runs), number(median(runs, "mock", "connections"), 0), state_of(runs)]


def absent_rows(args, load):
    return [[peer.title, "not installed"] for peer in upstream_peers.ALL
            if not peer.available(args) and upstream.runs_at(peer, load)]


def targets(results):
    """The rows of the table of targets."""
    lines = []

    def add(what, value, limit, unit="x"):
        if value is not None:
            state = "met" if value <= limit else "NOT met"
            lines.append(f"| {what} | <= {limit:g}{unit} | {value:.2f}{unit} | {state} |")

    for name, limit in (("W8-100", 2.0), ("W8-1000", 1.25), ("W8-4000", 1.1)):
        for peer in ("up-sse", "up-chat", "up-ws"):
            if results[name].get(peer):
                add(f"CPU of {peer}'s path against nginx, {name}", ratio_to_base(results[name], peer), limit)
    for peer in ("up-sse", "up-chat", "up-ws"):
        peers = results["W8-1000"]
        if not peers.get(peer):
            continue
        add(f"p99 of {peer} above direct, W8-1000", above_direct(peers, peer, delay("p99")), 1.5, " ms")
        add(f"first token of {peer}, added p50, W8-1000", middle(peers[peer], milliseconds("added_first_token_us", "p50")), 1, " ms")
        add(f"service beside {peer}, W8-1000", median(peers[peer], "processes", "service", "kib_per_stream"), 24,
            " KiB per stream")
        add(f"service beside {peer}, W8-1000", median(peers[peer], "processes", "service", "threads"), 8, " threads")
    return lines


def tables(args, results):
    parts = ["**W8: from an OpenAI-compatible server to the client.** The mock server and the load client are not part of "
             "the sums. Latency is from the server's write to the client; what is added to the first token is the time "
             "from the request to the first token, without the time that the server took."]
    for load in upstream.LOADS:
        peers = results[load.name]
        if not peers:
            continue
        row_of, head = (streams_row, STREAMS_HEAD) if load.windowed else (connect_row, CONNECT_HEAD)
        rows = [row_of(peer.title, peers, peer.name) for peer in upstream_peers.ALL if peers.get(peer.name)]
        lines = ["| " + " | ".join(row) + " |" for row in rows + absent_rows(args, load)]
        parts.append(f"**{load.name}: {load.title}**\n\n{head}\n" + "\n".join(lines))
    if not args.quick and (lines := targets(results)):
        parts.append("**Targets of W8**\n\n| what | target | measured | |\n|---|---|---|---|\n" + "\n".join(lines))
    return "\n\n".join(parts) + "\n"
