"""Files stay under 400 lines and functions under 60, but for those of size_exceptions.txt, each with its reason."""

import pathlib
import re

import source_tree

FILE_LINES = 400
FUNCTION_LINES = 60
_SCOPE = re.compile(r"\b(?:namespace|class|struct|union|enum|extern)\b[^()]*$")
_NAME = re.compile(r"([\w:~]+|operator\S+)\s*\(")


def functions(source):
    """(name, first line, lines) of every function defined at namespace or class scope."""
    source = re.sub(r"^[ \t]*#[^\n]*(?:\\\n[^\n]*)*", lambda m: re.sub(r"[^\n]", " ", m.group()), source_tree.code(source),
                    flags=re.MULTILINE)
    found, open_braces, start, parentheses = [], [], 0, 0
    for index, character in enumerate(source):
        parentheses += (character == "(") - (character == ")")
        if character == "{":
            head = source[start:index]
            inside = any(kind != "scope" for kind, _, _ in open_braces) or parentheses > 0
            kind = "block" if inside else "scope" if _SCOPE.search(head) else "function" if "(" in head else "block"
            name = _NAME.search(head)
            open_braces.append((kind, name.group(1) if name else "?", start + len(head) - len(head.lstrip())))
        elif character == "}" and open_braces:
            kind, name, begin = open_braces.pop()
            if kind == "function":
                first = source.count("\n", 0, begin) + 1
                found.append((name, first, source.count("\n", begin, index) + 1))
        if character in "{};" and parentheses == 0 and all(kind == "scope" for kind, _, _ in open_braces):
            start = index + 1
    return found


def exceptions(root):
    """{path or path:function: reason}"""
    lines = pathlib.Path(root, "tests/house/size_exceptions.txt").read_text(encoding="utf-8").splitlines()
    rows = (line.split(None, 1) for line in lines if line.strip() and not line.startswith("#"))
    return {row[0]: row[1] if len(row) > 1 else "" for row in rows}


def check(root):
    allowed = exceptions(root)
    problems = [f"size_exceptions.txt: {key} has no reason" for key, reason in allowed.items() if not reason]
    too_long = set()
    for path in source_tree.files(root):
        source = source_tree.text(root, path)
        lines = source.count("\n")
        if lines > FILE_LINES:
            too_long.add(path)
            if path not in allowed:
                problems.append(f"{path}: {lines} lines, more than {FILE_LINES}; split it, or give a reason in size_exceptions.txt")
        for name, first, length in functions(source):
            if length > FUNCTION_LINES:
                key = f"{path}:{name}"
                too_long.add(key)
                if key not in allowed:
                    problems.append(f"{path}:{first}: {name} has {length} lines, more than {FUNCTION_LINES}; split it, "
                                    "or give a reason in size_exceptions.txt")
    return problems + [f"size_exceptions.txt: {key} is not too long; remove the line" for key in allowed if key not in too_long]
