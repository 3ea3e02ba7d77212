"""The llama engine against llama.cpp alone: same model, threads, prompts and tokens, interleaved."""

import json
import os
import statistics
import subprocess

from processes import HOST, Stack, free_ports

STREAMS = (1, 4, 8)
TOKENS = 96
PROMPT = "The history of rivers, told at length and with many names. Chapter "


def _alone(args, model, streams, threads):
    done = subprocess.run([args.build / "bin/bench-llama", model, str(streams), str(TOKENS), str(threads), PROMPT],
                          capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def _service(args, model, streams, threads, logs):
    with Stack(logs) as stack:
        port, admin = free_ports(2)
        stack.start("runnel-inference", [
            args.build / "bin/runnel-inference", "--engine=llama", f"--model={model}", f"--listen={HOST}:{port}",
            f"--admin_listen={HOST}:{admin}", f"--llama_threads={threads}", f"--llama_sequences={streams}",
            "--drain_timeout=1s", "--log_level=warn"], port, admin)
        result = logs / "load.json"
        subprocess.run([args.build / "bin/runnel-load", "--transport=grpc", f"--address={HOST}:{port}",
                        f"--streams={streams}", f"--tokens={TOKENS}", f"--prompt={PROMPT}", "--timeout=120s",
                        f"--json={result}"], capture_output=True, check=False)
        run = json.loads(result.read_text())
        return {"tokens": run["tokens_in_all"], "seconds": run["seconds"], "good": run["good"],
                "tokens_per_second": run["tokens_in_all"] / run["seconds"],
                "first_token_us": run["first_token_us"]["p50"]}


def run(args, model):
    """Rows of streams -> name -> list of runs."""
    threads = os.cpu_count()
    results = {streams: {"alone": [], "runnel": []} for streams in STREAMS}
    for round_number in range(args.rounds):
        for streams in STREAMS:
            logs = args.out / "logs" / f"engine-{streams}-{round_number}"
            results[streams]["alone"].append(_alone(args, model, streams, threads))
            results[streams]["runnel"].append(_service(args, model, streams, threads, logs))
            print(f"bench: engine, {streams} streams, round {round_number + 1}: ok", flush=True)
    return results


def table(results):
    lines = [f"**The llama engine against llama.cpp alone** ({os.cpu_count()} threads, {TOKENS} tokens each)\n",
             "| streams | llama.cpp tokens/s | Runnel tokens/s | ratio (bar >= 0.97) | llama.cpp first token ms | Runnel first token ms | ratio (bar <= 1.05) |",
             "|---|---|---|---|---|---|---|"]
    for streams, both in results.items():
        pairs = list(zip(both["runnel"], both["alone"]))
        middle = lambda name, key: statistics.median(run[key] for run in both[name])
        ratio = lambda key: statistics.median(ours[key] / theirs[key] for ours, theirs in pairs)
        lines.append(f"| {streams} | {middle('alone', 'tokens_per_second'):.1f} | {middle('runnel', 'tokens_per_second'):.1f} "
                     f"| {ratio('tokens_per_second'):.3f} | {middle('alone', 'first_token_us') / 1000:.1f} "
                     f"| {middle('runnel', 'first_token_us') / 1000:.1f} | {ratio('first_token_us'):.3f} |")
    return "\n".join(lines) + "\n"
