"""Runs every row of the tables in interleaved rounds, and writes raw JSON, Markdown and SVG. See run.sh for the flags."""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import article
import chart
import engine
import peers
import report
import stores
import upstream
import upstream_peers
import upstream_report
import workloads
from processes import Stack


# Measured differently: the largest number of live streams, the upstream engine among proxies, the llama engine, and the
# comparison of the transports.
SPECIAL = ("W7", "W8", "engine", "article")
W8_LOADS = tuple(load.name for load in upstream.LOADS)


def parse_args():
    parser = argparse.ArgumentParser(prog="run.sh", description="Measures Runnel and its peers.")
    parser.add_argument("--workloads", default="W1,W1s,W2",
                        help=f"comma-separated, or all: {','.join([*workloads.BY_NAME, *SPECIAL])}; "
                             f"a part of W8: {','.join(W8_LOADS)}")
    parser.add_argument("--peers", default="", help=f"comma-separated; default: all peers of a workload: {','.join([*peers.BY_NAME, *upstream_peers.BY_NAME])}")
    parser.add_argument("--seconds", type=float, default=4, help="measured time of a row [s]")
    parser.add_argument("--rounds", type=int, default=3, help="number of runs of each row; the report shows medians")
    parser.add_argument("--quick", action="store_true", help="smoke run with few streams, one second and one round")
    parser.add_argument("--model", default="", help=argparse.SUPPRESS)
    parser.add_argument("--cache", default="", help=argparse.SUPPRESS)
    parser.add_argument("--build", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, required=True, help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.out = args.out.resolve()
    if args.quick:
        args.seconds, args.rounds = 0.5, 1
    args.workloads = [*workloads.BY_NAME, *SPECIAL] if args.workloads == "all" else args.workloads.split(",")
    args.peers = args.peers.split(",") if args.peers else []
    known = [*workloads.BY_NAME, *SPECIAL, *W8_LOADS, *peers.BY_NAME, *upstream_peers.BY_NAME]
    if unknown := [name for name in args.workloads + args.peers if name not in known]:
        parser.error(f"unknown: {', '.join(unknown)}")
    args.upstream_loads = W8_LOADS if "W8" in args.workloads else [name for name in W8_LOADS if name in args.workloads]
    return args


def rows_of(args):
    """The rows in the order of the tables, as (workload, peer)."""
    rows = []
    for workload in (workloads.BY_NAME[name] for name in args.workloads if name in workloads.BY_NAME):
        chosen = workload.peers or list(peers.BY_NAME)
        for peer in peers.ALL:
            if peer.name not in chosen or (args.peers and peer.name not in args.peers):
                continue
            if not peer.available(args.build):
                print(f"bench: {peer.name} is not installed, skipped", file=sys.stderr)
            elif workload.streams <= peer.most_streams:
                rows.append((workload, peer))
    return rows


def load_flags(args, workload, target, result):
    streams = min(workload.streams, 50) if args.quick else workload.streams
    pids = [f"{name}:{'+'.join(map(str, group))}" for name, group in target.groups.items()]
    flags = [f"--transport={target.transport}", f"--address=127.0.0.1:{target.port}", f"--streams={streams}",
             f"--pids={','.join(pids)}", f"--json={result}", *workload.flags, *target.flags]
    if workload.windowed:
        flags += [f"--window={args.seconds}s", f"--warmup={min(1, args.seconds)}s"]
    if args.quick:
        flags += ["--slack=1s"]
    return flags


def run_row(args, workload, peer, round_number):
    """Runs one measurement; returns the load client's result as a dict, with `error` if it failed."""
    logs = args.out / "logs" / f"{workload.name}-{peer.name}-{round_number}"
    shutil.rmtree(logs, ignore_errors=True)
    with Stack(logs) as stack:
        try:
            target = peer.start(stack, args.build)
        except (RuntimeError, OSError) as error:
            return {"good": False, "error": str(error)}
        flags = load_flags(args, workload, target, logs / "load.json")
        if target.feeder:
            with open(logs / "feeder.log", "ab") as log:
                stack.children.append(subprocess.Popen(
                    [str(arg) for arg in target.feeder] + [f for f in flags if not f.startswith("--json=")],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log))
        done = subprocess.run([args.build / "bin/runnel-load", *flags], capture_output=True, text=True, check=False)
        (logs / "load.log").write_text(done.stdout + done.stderr)
        path = logs / "load.json"
        return json.loads(path.read_text()) if path.exists() else {"good": False, "error": done.stderr.strip()}


def run_all(args, rows):
    """Runs all rows once per round, so that a drift of the machine affects all rows equally."""
    results = {(workload.name, peer.name): [] for workload, peer in rows}
    for round_number in range(args.rounds):
        for workload, peer in rows:
            begin = time.monotonic()
            result = run_row(args, workload, peer, round_number)
            results[workload.name, peer.name].append(result)
            cost = result.get("processes", {}).get("bridge", {}).get("cpu_us_per_event")
            print(f"bench: round {round_number + 1}/{args.rounds} {workload.name} {peer.name}: "
                  f"{'ok' if result['good'] else result.get('error') or result.get('first_fault') or 'FAILED'}"
                  f"{f', {cost:.2f} us/event' if cost is not None else ''} ({time.monotonic() - begin:.0f} s)", flush=True)
    return results


def keeps_up(args, peer, streams):
    # The streams last as long as the opening takes, and are cut after the window.
    workload = workloads.Workload("W7", "", streams, ("--pace=30", "--tokens=1000000", "--cut", "--timeout=60s"))
    run = run_row(args, workload, peer, streams)
    return run["good"] and run["delay_us"]["p99"] < 50_000 and run["events"] > 0.95 * 30 * streams * run["seconds"]


def most_live(args, peer):
    """W7: the largest number of streams at 30 tokens/s with 99 % of the tokens within 50 ms, to one eighth."""
    good, streams = 0, 200 if args.quick else 1000
    while streams <= peer.most_streams and keeps_up(args, peer, streams):
        good, streams = streams, streams * 2
        if args.quick:
            return good
    bad = streams
    while good > 0 and bad > good * 9 // 8:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if middle <= peer.most_streams and keeps_up(args, peer, middle) else (good, middle)
    return good


def live_table(args):
    chosen = [peer for peer in peers.ALL if peer.name in (args.peers or workloads.FASTEST) and peer.available(args.build)]
    lines = ["**W7: live streams at 30 tokens/s with a p99 below 50 ms**, client and service on the same cores\n",
             "| | streams | tokens/s |", "|---|---|---|"]
    for peer in chosen:
        best = statistics.median_low([most_live(args, peer) for _ in range(args.rounds)])
        print(f"bench: W7 {peer.name}: {best}", flush=True)
        lines.append(f"| {peer.title} | {best:,} | {best * 30:,} |")
    return "\n".join(lines) + "\n"


def special_tables(args):
    """The selected tables of SPECIAL and their raw results."""
    tables, raw = [], {}
    if "W7" in args.workloads:
        tables.append(live_table(args))
    if args.upstream_loads:
        raw["W8"] = upstream.run(args)
        tables.append(upstream_report.tables(args, raw["W8"]))
    if "engine" in args.workloads:
        if args.model and Path(args.model).exists() and (args.build / "bin/bench-llama").exists():
            raw["engine"] = engine.run(args, args.model)
            tables.append(engine.table(raw["engine"]))
        else:
            print("bench: skipped the engine: no llama.cpp or no model", file=sys.stderr)
    if "article" in args.workloads:
        raw["article"] = article.run(args)
        tables.append(article.table(raw["article"]))
    return tables, raw


def main():
    args = parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    rows = rows_of(args)
    results = run_all(args, rows)
    tables, raw = special_tables(args)
    raw["rows"] = [{"workload": workload, "peer": peer, "runs": runs} for (workload, peer), runs in results.items()]
    (args.out / "raw.json").write_text(json.dumps(raw, indent=1))
    if rows:
        tables.insert(0, report.tables(rows, results) + stores.table(rows, results))
        (args.out / "chart.svg").write_text(chart.svg(rows, results))
    text = "\n".join(tables)
    (args.out / "report.md").write_text(text)
    print(text)
    print(f"bench: {args.out}/report.md, raw.json and chart.svg")
    good = all(run["good"] for runs in results.values() for run in runs) and upstream.is_good(raw.get("W8", {}))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
