"""Under 1 % of the lines of C++ stand in two places: equal runs of 6 lines or more, blanks and comments aside."""

import collections
import re

import source_tree

RUN = 6
LIMIT = 0.01


def meaningful_lines(source):
    """(line number, line) without layout; include lines and lines of closing brackets alone say nothing."""
    for number, line in enumerate(source_tree.code(source).split("\n"), 1):
        line = re.sub(r"\s+", " ", line).strip()
        if re.search(r"\w", line) and not line.startswith(("#include", "#pragma", "namespace")):
            yield number, line


def check(root):
    places = collections.defaultdict(list)
    lines_of = {path: list(meaningful_lines(source_tree.text(root, path))) for path in source_tree.files(root)}
    for path, lines in lines_of.items():
        for index in range(len(lines) - RUN + 1):
            places[tuple(line for _, line in lines[index:index + RUN])].append((path, index))
    duplicated, report = set(), []
    for group in places.values():
        if len(group) > 1:
            for path, index in group:
                duplicated.update((path, index + offset) for offset in range(RUN))
            (first, here), (second, there) = group[0], group[1]
            report.append(f"{first}:{lines_of[first][here][0]} stands again in {second}:{lines_of[second][there][0]}")
    total = sum(map(len, lines_of.values()))
    if total and len(duplicated) > LIMIT * total:
        return [f"{len(duplicated)} of {total} lines are duplicates, more than {LIMIT:.0%}; share them:"] + report[:40]
    return []
