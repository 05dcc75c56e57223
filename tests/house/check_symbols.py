"""Some symbols belong to some folders alone."""

import re

import source_tree

MPI_HOMES = ("collectives/", "tests/collectives/", "tests/launch/", "benchmarks/")
RULES = (
    # pattern, may it stand in this file, why not
    (r"\b(?:std::)?(?:secure_)?getenv\s*\(", lambda path: path.startswith(("launch/", "tests/", "benchmarks/")),
     "reads the environment below launch/; pass the value down"),
    (r"(?<![\w.>:])(?<!void )(?:std::|::)?(?:_?exit|_Exit|quick_exit|abort)\s*\(",
     lambda path: path.startswith(("launch/", "tests/", "benchmarks/")), "ends the process below launch/; throw instead"),
    (r"\bMPI_[A-Z]\w*|#\s*include\s*<mpi\.h>", lambda path: path.startswith(MPI_HOMES),
     "uses MPI outside of collectives/; use the Communicator"),
    (r"\bcuda[A-Z]\w*\s*\(|#\s*include\s*<cuda", lambda path: path.startswith(("runtime/cuda/", "collectives/")),
     "uses CUDA outside of runtime/cuda/ and collectives/"),
)


def check(root):
    problems = []
    for path in source_tree.files(root):
        source = source_tree.code(source_tree.text(root, path))
        for pattern, allowed, why in RULES:
            if allowed(path):
                continue
            for match in re.finditer(pattern, source):
                number = source.count("\n", 0, match.start()) + 1
                problems.append(f"{path}:{number}: {match.group().strip()} {why}")
    return problems
