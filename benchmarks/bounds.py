#!/usr/bin/env python3
"""Where the time of a training step goes, beside what this machine would take at least: for every kind of operation the step's time from
the ledger that `build/annulus train` leaves, and its bound, the larger of its operations at cold C and its bytes at the memory's rate,
both as `products` measures them in the same run. Operands of an operation that caches may hold have no bytes in its bound. Ranks share
the memory and the cores: bounds are of what all ranks do. Prints tables in Markdown.

    benchmarks/bounds.py [--folder build] [--steps 7] [--only REGEX]
"""

import argparse
import collections
import json
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile

import step_time

CACHED = 4 << 20  # bytes: two cores' own caches

# Bytes that R ranks of one host read and write in memory for a collective of M bytes.
TRAFFIC = {
    "all_reduce": lambda M, R: 2 * R * M,  # in place: every rank's operand is read once and written once
    "scatter_bucket": lambda M, R: (R + 1) * M,
    "reduce_scatter": lambda M, R: (R + 1) * M,
    "gather_bucket": lambda M, R: 2 * (R - 1) * M,
    "all_gather": lambda M, R: 2 * R * M,
    "shift": lambda M, R: 2 * R * M,
}


def ceilings(products, case):
    model, sequences, length = case
    command = [str(products), "--layers", model["layers"], "--hidden", model["hidden"], "--vocabulary", model["vocabulary"],
               "--tokens", sequences * length, "--json"]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def bound(op, ranks, ceiling):
    """Seconds of one call, on all ranks."""
    if op["axes"]:
        moved = TRAFFIC[op["kind"]](op["payload_bytes"], ranks)
    else:
        moved = ranks * (op["bytes_read"] + op["bytes_written"])
    memory = moved / ceiling["memory_gbytes"] / 1e9 if moved > CACHED else 0
    return max(ranks * op["flops"] / ceiling["cold_gflops"] / 1e9, memory)


def by_kind(ledger, ranks, ceiling, step):
    seconds, bounds, calls = (collections.Counter() for _ in range(3))
    exposed = 0
    for op in ledger["ops"]:
        name = f"{op['kind']} over {op['axes']}" if op["axes"] else op["kind"]
        times = op["calls_per_step"]
        seconds[name] += times * op["measured_seconds"]
        bounds[name] += times * bound(op, ranks, ceiling)
        calls[name] += times
        exposed += times * op["exposed_seconds"] if op["axes"] else 0
    print("| kind | calls | ms | ms at least | of its time |\n|---|---|---|---|---|")
    for name, took in seconds.most_common():
        if took > 0.003 * step:
            print(f"| {name} | {calls[name]:.0f} | {1e3 * took:.1f} | {1e3 * bounds[name]:.1f} | {bounds[name] / took:.2f} |")
    if exposed:
        print(f"| exposed | | {1e3 * exposed:.1f} | | |")
    least = sum(bounds.values())
    print(f"| **step** | | {1e3 * step:.1f} | {1e3 * least:.1f} | {least / step:.2f} |")


def by_product(ledger, ranks):
    """Rates of all ranks together."""
    seconds, flops = collections.Counter(), collections.Counter()
    for op in ledger["ops"]:
        if op["kind"] == "matmul":
            name = f"{re.sub(r'[.]?[0-9]+', '', op['scope'])} {op['phase']}"
            seconds[name] += op["calls_per_step"] * op["measured_seconds"]
            flops[name] += op["calls_per_step"] * op["flops"]
    print("\n| product | ms | GFLOP/s |\n|---|---|---|")
    for name, took in seconds.most_common():
        print(f"| {name} | {1e3 * took:.1f} | {ranks * flops[name] / took / 1e9:.0f} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=pathlib.Path, default=step_time.SOURCE / "build", help="where the programs are")
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--only", default="", help="a regular expression that `case | mesh` must match")
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    print(f"{step_time.provenance()} Command: `{shlex.join(['benchmarks/bounds.py', *sys.argv[1:]])}`. Medians.")
    for number, (case_name, case) in enumerate(step_time.CASES.items()):
        meshes = {name: mesh for name, mesh in step_time.MESHES.items() if re.search(arguments.only, f"{case_name} | {name}")
                  and not ("parallel.dp=2" in mesh[1] and case[1] < 2)}
        ceiling = ceilings(folder / "products", case) if meshes else None
        for name, mesh in meshes.items():
            with tempfile.TemporaryDirectory(prefix="annulus-bounds-") as temporary:
                metrics = step_time.run(folder / "annulus", pathlib.Path(temporary), str(number), case, mesh, arguments.steps)
                ledger = json.loads((pathlib.Path(temporary) / str(number) / "ledger.json").read_text())
            print(f"\n**{case_name}, {name}**: C = {ceiling['weighted_gflops']:.0f} GFLOP/s, cold C = {ceiling['cold_gflops']:.0f} "
                  f"GFLOP/s, memory {ceiling['memory_gbytes']:.1f} GB/s\n")
            by_kind(ledger, mesh[0], ceiling, step_time.median(metrics, "step_seconds"))
            by_product(ledger, mesh[0])
            sys.stdout.flush()


if __name__ == "__main__":
    main()
