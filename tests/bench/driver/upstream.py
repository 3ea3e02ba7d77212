"""W8: the road from an OpenAI-compatible server to the client, through Runnel's upstream engine or a proxy."""

import json
import shutil
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass

import upstream_peers
from processes import HOST, Stack, free_ports

QUICK_STREAMS = 20
QUICK_LOADS = ("W8-1000", "W8-connect")


@dataclass(frozen=True)
class Load:
    name: str
    title: str
    streams: int
    pace: float
    open_rate: int  # connections per second; 0: at most 64 that are not open yet, as fast as they are served
    tokens: int = 0  # 0: as many as the measured time needs
    parts: bool = False  # reasoning, text and two tool calls in place of text

    @property
    def windowed(self):
        return self.tokens == 0


LOADS = [
    Load("W8-100", "100 streams x 30 tokens/s", 100, 30, 100),
    Load("W8-1000", "1,000 streams x 30 tokens/s", 1000, 30, 500),
    Load("W8-4000", "4,000 streams x 7.5 tokens/s", 4000, 7.5, 1000),
    Load("W8-parts", "1,000 streams x 30 tokens/s of reasoning, text and two tool calls", 1000, 30, 500, parts=True),
    Load("W8-connect", "5,000 requests, each on a new connection, 5 tokens at 1,000/s", 5000, 1000, 0, tokens=5),
]


def load_flags(args, load, peer, target, result):
    streams = min(load.streams, peer.most_streams, QUICK_STREAMS if args.quick else load.streams)
    open_rate = min(load.open_rate, peer.open_rate)
    pids = [f"{name}:{'+'.join(map(str, group))}" for name, group in target.groups.items()]
    flags = ["--mock", f"--transport={target.transport}", f"--address={HOST}:{target.port}", f"--streams={streams}",
             f"--pace={load.pace}", f"--open_rate={open_rate}", f"--pids={','.join(pids)}", f"--json={result}",
             "--timeout=120s", *(["--parts"] if load.parts else [])]
    if not load.windowed:
        return [*flags, f"--tokens={load.tokens}"]
    # The first streams must last until the end of the window, however long the others take to open.
    opening = streams / open_rate
    return [*flags, f"--window={args.seconds}s", f"--warmup={min(1, args.seconds)}s",
            f"--slack={opening + (1 if args.quick else 2.5)}s"]


def mock_counts(port):
    with urllib.request.urlopen(f"http://{HOST}:{port}/stats", timeout=5) as response:
        return json.load(response)


def warm_up(args, target):
    """The first requests through LiteLLM take seconds, for which it imports modules. Returns what went wrong."""
    done = subprocess.run([args.build / "bin/runnel-load", "--mock", f"--transport={target.transport}",
                           f"--address={HOST}:{target.port}", "--streams=4", "--tokens=3", "--pace=100"],
                          capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else f"warm-up: {(done.stdout + done.stderr).strip()}"


def run_row(args, load, peer, round_number):
    """Runs one measurement. Returns the load client's result, with the mock server's counts under `mock`."""
    logs = args.out / "logs" / f"{load.name}-{peer.name}-{round_number}"
    shutil.rmtree(logs, ignore_errors=True)
    with Stack(logs) as stack:
        try:
            mock, = free_ports(1)
            pid = stack.start("mock", [args.build / "bin/bench-upstream-mock", mock], mock)
            target = peer.start(stack, args, mock)
        except (RuntimeError, OSError) as error:
            return {"good": False, "error": str(error)}
        target.groups["mock"] = [pid]
        if error := warm_up(args, target):
            return {"good": False, "error": error}
        before = mock_counts(mock)
        flags = load_flags(args, load, peer, target, logs / "load.json")
        done = subprocess.run([args.build / "bin/runnel-load", *flags], capture_output=True, text=True, check=False)
        (logs / "load.log").write_text(done.stdout + done.stderr)
        path = logs / "load.json"
        if not path.exists():
            return {"good": False, "error": done.stderr.strip()}
        after = mock_counts(mock)
        counts = {key: after[key] - before[key] for key in ("connections", "requests")}
        counts["connections"] -= 1  # that of mock_counts
        return json.loads(path.read_text()) | {"mock": counts}


def runs_at(peer, load):
    """LiteLLM is measured once, with the streams that it can serve, and not at the loads that saturate it."""
    return load.streams <= peer.most_streams or (peer.fewer and load is LOADS[0])


def chosen_peers(args):
    chosen = [peer for peer in upstream_peers.ALL if not args.peers or peer.name in args.peers]
    for peer in chosen:
        if not peer.available(args):
            print(f"bench: {peer.name} is not installed, skipped", file=sys.stderr)
    return [peer for peer in chosen if peer.available(args)]


def run(args):
    """Runs all rows once per round. Returns the runs by load and peer."""
    loads = [load for load in LOADS if load.name in args.upstream_loads]
    # A load that was chosen by name is always run.
    if args.quick and len(loads) == len(LOADS):
        loads = [load for load in loads if load.name in QUICK_LOADS]
    chosen = chosen_peers(args)
    rows = [(load, peer) for load in loads for peer in chosen if args.quick or runs_at(peer, load)]
    results = {load.name: {} for load in LOADS}
    for round_number in range(args.rounds):
        for load, peer in rows:
            begin = time.monotonic()
            result = run_row(args, load, peer, round_number)
            results[load.name].setdefault(peer.name, []).append(result)
            state = "ok" if result["good"] else result.get("error") or result.get("first_fault") or "FAILED"
            print(f"bench: round {round_number + 1}/{args.rounds} {load.name} {peer.name}: {state} "
                  f"({time.monotonic() - begin:.0f} s)", flush=True)
    return results


def is_good(results):
    return all(run["good"] for peers in results.values() for runs in peers.values() for run in runs)
