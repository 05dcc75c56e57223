"""Holds the checks of the house against small trees that break each rule, and one that breaks none."""

import pathlib
import tempfile
import unittest

import check_duplicates
import check_includes
import check_links
import check_sizes
import check_symbols

CMAKE = """annulus_library(core runtime/core fmt::fmt)
annulus_library(ops runtime/ops annulus::core)
annulus_library(model model annulus::ops)
annulus_library(launch launch annulus::model)
"""


def body(lines):
    return "".join(f"  step_{line}();\n" for line in range(lines))


class HouseTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = pathlib.Path(folder.name)
        self.write("CMakeLists.txt", CMAKE)
        self.write("tests/house/size_exceptions.txt", "")
        self.write("runtime/core/base.h", "#pragma once\n")

    def write(self, path, text):
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)

    def found(self, check, *words):
        problems = check.check(self.root)
        self.assertEqual(len(problems), 1, problems)
        for word in words:
            self.assertIn(word, problems[0])

    def test_a_tidy_tree(self):
        self.write("launch/main.cpp", '#include "runtime/core/base.h"\nint main() { return std::getenv("X") ? 1 : 0; }\n')
        self.write("runtime/core/x.cpp", "// getenv( and MPI_Send in a comment\nauto text = \"abort()\"; int n = 1'000;\n")
        for check in (check_includes, check_symbols, check_sizes, check_duplicates, check_links):
            self.assertEqual(check.check(self.root), [])

    def test_an_include_against_the_arrows(self):
        self.write("runtime/ops/op.h", "")
        self.write("runtime/core/up.h", '#include "runtime/ops/op.h"\n')
        self.found(check_includes, "runtime/core/up.h:1", "against the arrows")

    def test_an_include_of_launch(self):
        self.write("launch/x.h", "")
        self.write("model/up.h", '\n#include "launch/x.h"\n')
        self.found(check_includes, "model/up.h:2", "launch/x.h")

    def test_an_include_of_tests(self):
        self.write("tests/x.h", "")
        self.write("launch/up.cpp", '#include "tests/x.h"\n')
        self.found(check_includes, "launch/up.cpp:1", "against the arrows")

    def test_an_include_that_is_not_there(self):
        self.write("model/x.cpp", '#include "y.h"\n')
        self.found(check_includes, "model/x.cpp:1", "full path")

    def test_a_circle(self):
        self.write("model/a.h", '#include "model/b.h"\n')
        self.write("model/b.h", '#include "model/a.h"\n')
        self.found(check_includes, "a circle", "model/a.h -> model/b.h -> model/a.h")

    def test_the_environment_below_launch(self):
        self.write("model/x.cpp", "int a;\nconst char* b = std::getenv(\"HOME\");\n")
        self.found(check_symbols, "model/x.cpp:2", "environment")

    def test_the_end_of_the_process_below_launch(self):
        self.write("runtime/ops/x.cpp", "void f() { std::exit(1); }\n")
        self.found(check_symbols, "runtime/ops/x.cpp:1", "throw instead")

    def test_mpi_outside_of_its_homes(self):
        self.write("launch/train.cpp", "int f() { return MPI_Barrier(MPI_COMM_WORLD); }\n".replace("(MPI_COMM_WORLD)", "(x)"))
        self.write("collectives/x.cpp", "#include <mpi.h>\n")
        self.found(check_symbols, "launch/train.cpp:1", "MPI_Barrier")

    def test_a_long_file(self):
        self.write("model/x.h", "int a;\n" * 401)
        self.found(check_sizes, "model/x.h: 401 lines")

    def test_a_long_function(self):
        self.write("model/x.cpp", "namespace a {\nstruct S {\n  int f(int x) const {\n" + body(59) + "  }\n};\n}\n")
        self.found(check_sizes, "model/x.cpp:3: f has 61 lines")
        self.write("tests/house/size_exceptions.txt", "model/x.cpp:f   a table that reads best in one piece\n")
        self.assertEqual(check_sizes.check(self.root), [])
        self.write("model/x.cpp", "int f() {\n" + body(58) + "}\n")
        self.found(check_sizes, "not too long")

    def test_duplicates(self):
        lines = "".join(f"total += weight_{line} * value_{line};\n" for line in range(8))
        self.write("model/a.cpp", lines)
        self.write("model/b.cpp", "int other;\n" + lines)
        self.assertIn("16 of 17 lines", check_duplicates.check(self.root)[0])

    def test_links(self):
        self.write("docs/a.md", "# One thing\n[here](#one-thing) [code](../runtime/core/base.h) [web](https://example.org)\n")
        self.write("README.md", "[page](docs/a.md#another)\n")
        self.found(check_links, "README.md", "no such heading")


if __name__ == "__main__":
    unittest.main()
