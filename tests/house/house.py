"""Runs one check of the house:  house.py NAME ROOT.  Prints the problems found; exit code 0 or 1 (77: skipped)."""

import importlib
import sys


def main():
    name, root = sys.argv[1:]
    problems = importlib.import_module("check_" + name).check(root)
    for problem in problems:
        print(problem)
    print(f"{name}: {len(problems) or 'no'} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
