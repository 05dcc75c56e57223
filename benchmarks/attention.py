#!/usr/bin/env python3
"""Times causal attention, forward and backward, and prints tables in Markdown: one process with all cores as threads against a
zig-zag ring of as many ranks of one thread, which take turns; and both against C, the rate of GPT-2's own products in the same run.

    benchmarks/attention.py [--folder build] [--length N]... [--pairs 15] [--steps 3]

Rates count what the causal mask lets through, the backward as 2.5 forwards. The ratio is the median over pairs of one process's time
by the ring's, with its 95 % interval by bootstrap, and the same had hops taken no time: in every other step of the ring, they do not.
Exposed is how long the slower rank stood still for communication, as a part of the step.
"""

import argparse
import json
import os
import pathlib
import random
import statistics
import subprocess
import sys

import step_time

SOURCE = pathlib.Path(__file__).resolve().parents[1]
RESAMPLES = 10000


def measure(folder, ranks, length, steps):
    script = f'source "{SOURCE}/launch/mpi_environment.sh"; exec mpirun -n {ranks} "$@"'
    command = [str(folder / "attention"), "--length", str(length), "--steps", str(steps)]
    done = subprocess.run(["bash", "-c", script, "mpirun", *command], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(done.stdout + done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def ceiling(folder):
    done = subprocess.run([str(folder / "products"), "--json"], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)["weighted_gflops"]


def interval(values):
    """Of the median, by bootstrap."""
    draw = random.Random(1)
    medians = sorted(statistics.median(draw.choices(values, k=len(values))) for _ in range(RESAMPLES))
    return medians[RESAMPLES // 40], medians[-RESAMPLES // 40]


def ratio(ones, rings, what):
    """Of one process's time to the ring's, over pairs, in Markdown."""
    ratios = [one["step_seconds"] / ring[what] for one, ring in zip(ones, rings)]
    low, high = interval(ratios)
    return f"{statistics.median(ratios):.3f} [{low:.3f}, {high:.3f}]"


def rates(results):
    """GFLOP/s: of all, forward, backward."""
    flops = results[0]["forward_flops"]
    return [times * flops / statistics.median(result[f"{part}_seconds"] for result in results) / 1e9
            for part, times in (("step", 3.5), ("forward", 1), ("backward", 2.5))]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=pathlib.Path, default=SOURCE / "build", help="where the programs are")
    parser.add_argument("--length", type=int, action="append", help="4096 and 8192, where none is given")
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--steps", type=int, default=3)
    arguments = parser.parse_args()
    folder, cores = arguments.folder.resolve(), os.cpu_count()
    command = f"benchmarks/attention.py --pairs {arguments.pairs} --steps {arguments.steps}"
    print(f"{step_time.provenance()} Command: `{command}`. A=6, H=64, causal, fp32.\n")
    print("| S | on | step ms | GFLOP/s | of C | forward | backward | one process / ring | with free hops | exposed % |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    notes = []
    for length in arguments.length or [4096, 8192]:
        runs = {1: [], cores: []}
        ceilings = []
        for pair in range(arguments.pairs):
            if pair % 5 == 0:
                ceilings.append(ceiling(folder))
            for ranks in sorted(runs, reverse=bool(pair % 2)):
                runs[ranks].append(measure(folder, ranks, length, arguments.steps))
        exposed = statistics.median(run["exposed_seconds"] / run["step_seconds"] for run in runs[cores])
        for ranks, title in ((1, f"1 process, {cores} threads"), (cores, f"ring of {cores}")):
            milli = 1e3 * statistics.median(run["step_seconds"] for run in runs[ranks])
            both, forward, backward = rates(runs[ranks])
            ring = "| |"
            if ranks > 1:
                ring = " | ".join([ratio(runs[1], runs[ranks], "step_seconds"), ratio(runs[1], runs[ranks], "free_hops_seconds"),
                                   f"{100 * exposed:.2f}"])
            print(f"| {length} | {title} | {milli:.1f} | {both:.1f} | {both / statistics.median(ceilings):.3f} | {forward:.1f} | "
                  f"{backward:.1f} | {ring} |", flush=True)
        notes.append(f"C at S={length}: {', '.join(f'{rate:.1f}' for rate in ceilings)} GFLOP/s.")
    print("\n" + " ".join(notes))


if __name__ == "__main__":
    main()
