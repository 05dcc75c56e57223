#!/usr/bin/env python3
"""Two runs' loss curves side by side:  compare_runs.py RUN OTHER [--tolerance T].

Exit code 1 where a loss differs by more than T, relative (default 1e-4), or the runs have different steps.
"""

import argparse
import json
import pathlib
import sys

LINES = 12  # of the table


def losses(run):
    rows = (json.loads(line) for line in (pathlib.Path(run) / "metrics.jsonl").read_text().splitlines())
    return {row["step"]: row["loss"] for row in rows if "loss" in row}


def main():
    parser = argparse.ArgumentParser(description="Two runs' loss curves side by side")
    parser.add_argument("run")
    parser.add_argument("other")
    parser.add_argument("--tolerance", type=float, default=1e-4, help="largest relative difference (default: 1e-4)")
    options = parser.parse_args()
    one, other = losses(options.run), losses(options.other)
    if one.keys() != other.keys() or not one:
        print(f"the runs have {len(one)} and {len(other)} steps, not the same ones")
        return 1
    steps = sorted(one)
    shown = {steps[round(i * (len(steps) - 1) / (LINES - 1))] for i in range(LINES)}
    print(f"{'step':>6}  {options.run:>16}  {options.other:>16}  difference")
    worst = 0.0
    for step in steps:
        difference = abs(one[step] - other[step]) / abs(other[step])
        worst = max(worst, difference) if difference == difference else float("inf")
        if step in shown:
            print(f"{step:>6}  {one[step]:>16.6f}  {other[step]:>16.6f}  {difference:.1e}")
    good = worst <= options.tolerance
    print(f"largest relative difference of {len(steps)} steps: {worst:.1e} ({'within' if good else 'MORE THAN'} {options.tolerance:g})")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
