"""Runs every row of the tables, interleaved, and writes raw JSON, Markdown and SVG. See run.sh for the flags."""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import chart
import peers
import report
import workloads
from processes import Stack


def parse_args():
    parser = argparse.ArgumentParser(prog="run.sh", description="Measures Runnel and its peers.")
    parser.add_argument("--workloads", default="W1,W1s,W2", help=f"comma-separated, or all: {','.join(workloads.BY_NAME)}")
    parser.add_argument("--peers", default="", help=f"comma-separated; default: all that a workload is for: {','.join(peers.BY_NAME)}")
    parser.add_argument("--seconds", type=float, default=4, help="measured seconds of a row")
    parser.add_argument("--rounds", type=int, default=3, help="how often each row is run; medians are shown")
    parser.add_argument("--quick", action="store_true", help="a smoke run: few streams, one second, one round")
    parser.add_argument("--build", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, required=True, help=argparse.SUPPRESS)
    return parser.parse_args()


def rows_of(args):
    """The rows in the order of the tables, as (workload, peer)."""
    names = list(workloads.BY_NAME) if args.workloads == "all" else args.workloads.split(",")
    rows = []
    for name in names:
        workload = workloads.BY_NAME[name]
        chosen = args.peers.split(",") if args.peers else (workload.peers or list(peers.BY_NAME))
        for peer in peers.ALL:
            if peer.name not in chosen:
                continue
            if not peer.available(args.build):
                print(f"bench: {peer.name} is not installed, left out", file=sys.stderr)
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
    return flags


def run_row(args, workload, peer, round_number):
    """One measurement; a dict as the load client writes it, with what failed under `error`."""
    logs = args.out / "logs" / f"{workload.name}-{peer.name}-{round_number}"
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
    """Round by round, so that what drifts on the machine drifts for all rows alike."""
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


def main():
    args = parse_args()
    if args.quick:
        args.seconds, args.rounds = 1, 1
    args.out.mkdir(parents=True, exist_ok=True)
    rows = rows_of(args)
    results = run_all(args, rows)
    raw = [{"workload": workload, "peer": peer, "runs": runs} for (workload, peer), runs in results.items()]
    (args.out / "raw.json").write_text(json.dumps(raw, indent=1))
    tables = report.tables(rows, results)
    (args.out / "report.md").write_text(tables)
    (args.out / "chart.svg").write_text(chart.svg(rows, results))
    print(tables)
    print(f"bench: {args.out}/report.md, raw.json and chart.svg")
    return 0 if all(run["good"] for runs in results.values() for run in runs) else 1


if __name__ == "__main__":
    sys.exit(main())
