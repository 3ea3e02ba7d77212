"""The llama engine against llama.cpp alone: same model, threads, prompts and tokens, interleaved.

Measured twice: with the default, where the text of a generation does not depend on other generations in the batch and a
single generation is decoded by one thread; and without that guarantee, which llama.cpp alone does not give either.
"""

import json
import os
import statistics
import subprocess

from processes import HOST, Stack, free_ports

STREAMS = (1, 4, 8)
TOKENS = 192
PROMPT = "The history of rivers, told at length and with many names. Chapter "


def _alone(args, model, streams, threads):
    done = subprocess.run([args.build / "bin/bench-llama", model, str(streams), str(TOKENS), str(threads), PROMPT],
                          capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def _runnel(args, model, streams, threads, exact, logs):
    """Measures the engine through the SSE bridge, with the client on the same cores."""
    with Stack(logs) as stack:
        grpc, admin, port, bridge_admin = free_ports(4)
        stack.start("runnel-inference", [
            args.build / "bin/runnel-inference", "--engine=llama", f"--model={model}", f"--listen={HOST}:{grpc}",
            f"--admin_listen={HOST}:{admin}", f"--llama_threads={threads}", f"--llama_sequences={streams}",
            f"--llama_exact={str(exact).lower()}", "--drain_timeout=1s", "--log_level=warn"], grpc, admin)
        stack.start("runnel-sse", [
            args.build / "bin/runnel-sse", f"--listen={HOST}:{port}", f"--admin_listen={HOST}:{bridge_admin}",
            f"--inference={HOST}:{grpc}", "--io_threads=1", "--drain_timeout=1s", "--log_level=warn"],
            port, bridge_admin)
        result = logs / "load.json"
        subprocess.run([args.build / "bin/runnel-load", "--transport=sse", f"--address={HOST}:{port}",
                        f"--streams={streams}", f"--tokens={TOKENS}", f"--prompt={PROMPT}", "--timeout=120s",
                        f"--json={result}"], capture_output=True, check=False)
        run = json.loads(result.read_text())
        return {"tokens": run["tokens_in_all"], "seconds": run["seconds"], "good": run["good"],
                "tokens_per_second": run["tokens_in_all"] / run["seconds"],
                "first_token_us": run["first_token_us"]["p50"]}


def run(args, model):
    """Returns the runs by number of streams and name."""
    threads = os.cpu_count()
    results = {streams: {"alone": [], "fast": [], "exact": []} for streams in STREAMS}
    for round_number in range(args.rounds):
        for streams in STREAMS:
            results[streams]["alone"].append(_alone(args, model, streams, threads))
            for name in ("fast", "exact"):
                logs = args.out / "logs" / f"engine-{name}-{streams}-{round_number}"
                results[streams][name].append(_runnel(args, model, streams, threads, name == "exact", logs))
            print(f"bench: engine, {streams} streams, round {round_number + 1}: ok", flush=True)
    return results


def table(results):
    lines = [f"**The llama engine against llama.cpp alone** ({os.cpu_count()} threads, {TOKENS} tokens each; "
             "ratios are medians of the rounds')\n",
             "| streams | | tokens/s | x llama.cpp (bar >= 0.97) | first token ms | x llama.cpp (bar <= 1.05) |",
             "|---|---|---|---|---|---|"]
    titles = {"alone": "llama.cpp alone", "fast": "Runnel, `--llama_exact=false`", "exact": "Runnel, exact"}
    for streams, runs in results.items():
        for name, title in titles.items():
            middle = lambda key, name=name: statistics.median(run[key] for run in runs[name])
            ratio = lambda key, name=name: statistics.median(
                ours[key] / theirs[key] for ours, theirs in zip(runs[name], runs["alone"]))
            lines.append(f"| {streams} | {title} | {middle('tokens_per_second'):.1f} | {ratio('tokens_per_second'):.3f} "
                         f"| {middle('first_token_us') / 1000:.1f} | {ratio('first_token_us'):.3f} |")
    return "\n".join(lines) + "\n"
