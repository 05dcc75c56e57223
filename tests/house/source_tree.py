"""What the checks of the house share: the C++ files of the tree, and their text without comments and literals."""

import pathlib
import re

FOLDERS = ("runtime", "collectives", "parallel", "model", "launch")
ALL_FOLDERS = FOLDERS + ("tests", "benchmarks")
SUFFIXES = (".h", ".cuh", ".cpp")


def files(root, folders=ALL_FOLDERS):
    """The C++ files below the folders, as paths relative to the root, sorted."""
    root = pathlib.Path(root)
    found = [path for folder in folders for path in (root / folder).rglob("*") if path.suffix in SUFFIXES]
    return sorted(path.relative_to(root).as_posix() for path in found)


def text(root, path):
    return (pathlib.Path(root) / path).read_text(encoding="utf-8")


_HIDDEN = re.compile(
    r'R"([^(\s]*)\(.*?\)\1"'  # raw string
    r'|"(?:\\.|[^"\\\n])*"'  # string
    r"|(?<![0-9A-Fa-f])'(?:\\.|[^'\\\n])+'"  # character, but no digit separator
    r"|//[^\n]*|/\*.*?\*/",
    re.DOTALL,
)


def code(source):
    """The source with comments and literals blanked; line numbers stay."""
    return _HIDDEN.sub(lambda hidden: re.sub(r"[^\n]", " ", hidden.group()), source)


def includes(source):
    """(line number, path) of every include in quotes."""
    pattern = re.compile(r'^\s*#\s*include\s+"([^"]+)"')
    matches = ((number, pattern.match(line)) for number, line in enumerate(source.split("\n"), 1))
    return [(number, match.group(1)) for number, match in matches if match]
