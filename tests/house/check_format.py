"""Every C++ file is as clang-format would write it."""

import re
import shutil
import subprocess
import sys

import source_tree

VERSION = "14"  # versions differ in details; this is Debian 12's
SKIPPED = 77


def check(root):
    tool = shutil.which("clang-format-" + VERSION) or shutil.which("clang-format")
    version = subprocess.run([tool, "--version"], capture_output=True, text=True, check=True).stdout if tool else ""
    if not re.search(rf"version {VERSION}\.", version):
        print(f"skipped: clang-format {VERSION} is not installed")
        sys.exit(SKIPPED)
    paths = source_tree.files(root)
    result = subprocess.run([tool, "--dry-run", "-Werror", *paths], cwd=root, capture_output=True, text=True, check=False)
    offenders = sorted({line.split(":")[0] for line in result.stderr.splitlines() if "-Wclang-format-violations" in line})
    if result.returncode and not offenders:
        return [result.stderr]
    return [f"{path}: clang-format would change it; run clang-format -i {path}" for path in offenders]
