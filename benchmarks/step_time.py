#!/usr/bin/env python3
"""Times whole training steps of build/annulus on random tokens and prints a table in Markdown: medians over the steps behind
the warm-up, of 1 rank with all cores as threads and of 2 ranks with half of them each, at the same global batch, in one run.

    benchmarks/step_time.py [--program build/annulus] [--steps 9] [--only REGEX]
"""

import argparse
import array
import json
import os
import pathlib
import platform
import random
import re
import shlex
import statistics
import subprocess
import sys
import tempfile

SOURCE = pathlib.Path(__file__).resolve().parents[1]
WARM_UP = 2

GPT2 = {"layers": 12, "hidden": 768, "heads": 12, "vocabulary": 50257}
CASES = {
    "GPT-2 124M, B=4 S=64": (GPT2, 4, 64),
    "GPT-2 124M, B=1 S=1024": (GPT2, 1, 1024),
    "GPT-2 124M, B=2 S=1024": (GPT2, 2, 1024),
    "6 layers, 384 wide, B=4 S=256": ({"layers": 6, "hidden": 384, "heads": 6, "vocabulary": 50257}, 4, 256),
}
MESHES = {
    "1 rank": (1, []),
    "TP=2": (2, ["parallel.tp=2"]),
    "TP=2 + SP": (2, ["parallel.tp=2", "parallel.sequence_parallel=true"]),
    "CP=2 zig-zag": (2, ["parallel.cp=2"]),
    "DP=2": (2, ["parallel.dp=2"]),
    "DP=2, optimizer not sharded": (2, ["parallel.dp=2", "optimizer.sharding=none"]),
}


def write_tokens(path, vocabulary, count):
    """Random tokens in llm.c's format: a header of 256 i32, then u16."""
    header = array.array("i", [20240520, 1, count] + [0] * 253)
    draw = random.Random(1)
    tokens = array.array("H", (draw.randrange(vocabulary) for _ in range(count)))
    path.write_bytes(header.tobytes() + tokens.tobytes())


def run(program, folder, name, case, mesh, steps):
    model, sequences, length = case
    ranks, settings = mesh
    tokens = folder / f"{length}.bin"
    if not tokens.exists():
        write_tokens(tokens, model["vocabulary"], 64 * length + 1)
    config = {"model": {**model, "block_size": length}, "batch": {"sequence_length": length, "global_sequences": sequences},
              "data": {"file": str(tokens)}, "training": {"steps": steps + WARM_UP}}
    (folder / "config.json").write_text(json.dumps(config))
    output = folder / name
    command = [str(program), "train", str(folder / "config.json"), "--set", f"output.folder={output}"]
    for setting in settings:
        command += ["--set", setting]
    script = f'source "{SOURCE}/launch/mpi_environment.sh"; exec mpirun -n {ranks} "$@"'
    done = subprocess.run(["bash", "-c", script, "mpirun", *command], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(done.stdout + done.stderr)
    lines = (output / "metrics.jsonl").read_text().splitlines()[WARM_UP:]
    return [json.loads(line) for line in lines]


def median(metrics, key):
    return statistics.median(line[key] for line in metrics)


def processor():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def provenance():
    """The machine and the commit, as a results file names them."""
    commit = subprocess.run(["git", "-C", str(SOURCE), "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return f"Machine: {processor()}, {os.cpu_count()} cores. Commit {commit.stdout.strip()}."


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", type=pathlib.Path, default=SOURCE / "build" / "annulus")
    parser.add_argument("--steps", type=int, default=9)
    parser.add_argument("--only", default="", help="a regular expression that `case | mesh` must match")
    arguments = parser.parse_args()
    print(f"{provenance()} Command: `{shlex.join(['benchmarks/step_time.py', *sys.argv[1:]])}`. Medians.\n")
    print("| case | mesh | step ms | predicted ms | compute ms | communication ms | exposed ms | MFU causal % | MFU 6N % | arena MB | peak MB |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="annulus-step-time-") as temporary:
        for number, (name, case) in enumerate(CASES.items()):
            for mesh_name, mesh in MESHES.items():
                too_few = "parallel.dp=2" in mesh[1] and case[1] < 2
                if too_few or not re.search(arguments.only, f"{name} | {mesh_name}"):
                    continue
                folder = pathlib.Path(temporary)
                metrics = run(arguments.program.resolve(), folder, f"{number}-{mesh_name.replace(' ', '-')}", case, mesh, arguments.steps)
                milli = [1e3 * median(metrics, key) for key in
                         ("step_seconds", "predicted_step_seconds", "compute_seconds", "communication_seconds", "exposed_communication_seconds")]
                percent = [100 * median(metrics, key) for key in ("mfu_causal", "mfu_6n")]
                mega = [median(metrics, key) / 1e6 for key in ("arena_bytes", "process_peak_bytes")]
                cells = [f"{value:.1f}" for value in milli + percent] + [f"{value:.0f}" for value in mega]
                print(f"| {name} | {mesh_name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
