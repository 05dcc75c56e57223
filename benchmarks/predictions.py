#!/usr/bin/env python3
"""Predicted against measured, of whole training steps: for every kind of operation and of collective that takes a share of the
step, and for the step itself, from the ledgers that `build/annulus train` leaves. Prints tables in Markdown; a cell is
`predicted / measured` milliseconds of a step and their ratio (measured over predicted), in bold where it is off by more than
1.25 (a step: 1.1). Then the meshes in the order of their steps, which all have the same global batch: a prediction is there
to choose among them.

    benchmarks/predictions.py [--program build/annulus] [--steps 7] [--only REGEX] [--profile FILE]
"""

import argparse
import itertools
import json
import pathlib
import re
import shlex
import sys
import tempfile

import step_time

CASES = {
    **step_time.CASES,
    "the demo's model, B=4 S=256": ({"layers": 7, "hidden": 320, "heads": 8, "vocabulary": 4096}, 4, 256),
}
MESHES = {
    "1 rank": step_time.MESHES["1 rank"],
    "TP=2": step_time.MESHES["TP=2"],
    "TP=2 + SP": step_time.MESHES["TP=2 + SP"],
    "DP=2": step_time.MESHES["DP=2"],
    "DP=2, optimizer not sharded": step_time.MESHES["DP=2, optimizer not sharded"],
    **{f"CP=2 {layout}": (2, ["parallel.cp=2", f"parallel.layout={layout}"]) for layout in ("contiguous", "striped", "zigzag")},
}
SHOWN = 0.01  # of a step
OP_BOUND, STEP_BOUND = 1.25, 1.1


def cell(predicted, measured, bound):
    """Seconds of both, and whether they agree."""
    if not predicted or not measured:
        return f"{1e3 * predicted:.1f} / {1e3 * measured:.1f}"
    ratio = measured / predicted
    text = f"{ratio:.2f}"
    if not 1 / bound <= ratio <= bound:
        text = f"**{text}**"
    return f"{1e3 * predicted:.1f} / {1e3 * measured:.1f} = {text}"


def rows_of(folder, metrics):
    """(row's name, share of the step, cell) of one run."""
    ledger = json.loads((folder / "ledger.json").read_text())
    step = step_time.median(metrics, "step_seconds")
    yield "**step**", 1, cell(ledger["predicted_step_seconds"], step, STEP_BOUND)
    for group in ledger["groups"]:
        name = f"{group['kind']} over {group['axes']}" if group["axes"] else group["kind"]
        yield name, group["measured_seconds"] / step, cell(group["predicted_seconds"], group["measured_seconds"], OP_BOUND)
    exposed = step_time.median(metrics, "exposed_communication_seconds")
    yield "exposed", exposed / step, cell(ledger["predicted_exposed_seconds"], exposed, float("inf"))


def print_ranking(steps):
    """`steps`: by mesh, seconds predicted and measured."""
    predicted_place = {name: place for place, name in enumerate(sorted(steps, key=lambda name: steps[name][0]), 1)}
    print("\n| place | mesh | measured ms | predicted ms | predicted place |\n|---|---|---|---|---|")
    order = sorted(steps, key=lambda name: steps[name][1])
    for place, name in enumerate(order, 1):
        predicted, measured = steps[name]
        print(f"| {place} | {name} | {1e3 * measured:.1f} | {1e3 * predicted:.1f} | {predicted_place[name]} |")
    pairs = list(itertools.combinations(order, 2))
    right = sum(steps[one][0] <= steps[other][0] for one, other in pairs)
    chosen = min(steps, key=lambda name: steps[name][0])
    print(f"\n{right} of {len(pairs)} pairs are in the order predicted; who takes the first by prediction ({chosen}) takes "
          f"{100 * (steps[chosen][1] / steps[order[0]][1] - 1):.1f} % longer than the best.")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", type=pathlib.Path, default=step_time.SOURCE / "build" / "annulus")
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--only", default="", help="a regular expression that `case | mesh` must match")
    parser.add_argument("--profile", type=pathlib.Path, help="a profile to predict with; else each run measures its own")
    arguments = parser.parse_args()
    print(f"{step_time.provenance()} Command: `{shlex.join(['benchmarks/predictions.py', *sys.argv[1:]])}`.")
    for number, (case_name, case) in enumerate(CASES.items()):
        meshes = {name: mesh for name, mesh in MESHES.items()
                  if re.search(arguments.only, f"{case_name} | {name}") and not ("parallel.dp=2" in mesh[1] and case[1] < 2)}
        table, shares, steps = {}, {}, {}
        for name, (ranks, settings) in meshes.items():
            if arguments.profile:
                settings = [*settings, f"log.profile={arguments.profile.resolve()}"]
            with tempfile.TemporaryDirectory(prefix="annulus-predictions-") as temporary:
                folder = pathlib.Path(temporary)
                metrics = step_time.run(arguments.program.resolve(), folder, str(number), case, (ranks, settings), arguments.steps)
                for row, share, text in rows_of(folder / str(number), metrics):
                    table.setdefault(row, {})[name] = text
                    shares[row] = max(share, shares.get(row, 0))
                steps[name] = (step_time.median(metrics, "predicted_step_seconds"), step_time.median(metrics, "step_seconds"))
        if not table:
            continue
        print(f"\n{case_name}, predicted / measured ms:\n")
        print(f"| | {' | '.join(meshes)} |\n|---|{'---|' * len(meshes)}")
        for row in sorted(table, key=lambda row: -shares[row]):
            if shares[row] >= SHOWN:
                print(f"| {row} | " + " | ".join(table[row].get(name, "") for name in meshes) + " |")
        if len(steps) > 1:
            print_ranking(steps)
        sys.stdout.flush()


if __name__ == "__main__":
    main()
