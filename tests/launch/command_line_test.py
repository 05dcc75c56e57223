"""The program as a user meets it:  command_line_test.py PROGRAM SOURCE_FOLDER."""

import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

# As launch/mpi_environment.sh does for scripts.
for variable in ("OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "OMPI_MCA_rmaps_base_oversubscribe"):
    os.environ[variable] = "1"
os.environ["PRTE_MCA_rmaps_default_mapping_policy"] = ":oversubscribe"

PROGRAM, SOURCE = (pathlib.Path(argument).resolve() for argument in sys.argv[1:3])


def run(*arguments, ranks=0, **environment):
    """(exit code, standard output, standard error)"""
    launcher = ["mpirun", "-n", str(ranks)] if ranks else []
    command = [*launcher, str(PROGRAM), *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env={**os.environ, **environment})
    return result.returncode, result.stdout, result.stderr


class CommandLineTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def refused(self, *arguments, words=(), ranks=0):
        """The messages of a call that must end with exit code 2."""
        code, _, messages = run(*arguments, ranks=ranks)
        self.assertEqual(code, 2, messages)
        ours = [line for line in messages.splitlines() if line.startswith("annulus: ")]
        for word in words:
            self.assertIn(word, "\n".join(ours))
        return ours

    def commands(self):
        code, text, _ = run("--help")
        self.assertEqual(code, 0)
        return [line.split()[0] for line in text.splitlines() if re.match("  \\w", line)]

    def test_every_command_has_help(self):
        self.assertGreaterEqual(len(self.commands()), 2)
        for command in self.commands():
            code, text, messages = run(command, "--help")
            self.assertEqual((code, messages), (0, ""), command)
            self.assertIn(f"annulus {command} ", text)

    def test_unknown_commands_and_options(self):
        self.assertEqual(self.refused("trian")[0].split(";")[0], "annulus: trian is no command")
        for command in self.commands():
            self.refused(command, "--no-such-option", words=(f"{command}: ", f"see annulus {command} --help"))

    def test_a_plan_says_whether_a_gpu_holds_the_step(self):
        config = self.folder / "small.json"
        config.write_text('{"model": {"layers": 2, "hidden": 64, "heads": 4, "vocabulary": 500}, "device": {"kind": "cuda"}}')
        code, text, messages = run("plan", config, "--device-memory", "80GiB")
        self.assertEqual(code, 0, messages)
        self.assertIn("in reserve for its context", text)
        code, _, messages = run("plan", config, "--device-memory", "1.01GiB")
        self.assertEqual(code, 2)
        for word in ("the step needs", "in reserve", "gradients and optimizer"):
            self.assertIn(word, messages)
        self.refused("plan", config, "--device-memory", "much", words=("--device-memory=much is no size",))

    def test_single_commands_refuse_mpirun_once(self):
        messages = self.refused("tokenize", self.folder / "x.tokens", ranks=2, words=("start it without mpirun",))
        self.assertEqual(len(messages), 1)

    def test_info(self):
        code, text, _ = run("info")
        self.assertEqual(code, 0)
        for word in ("annulus", "commit", "compiler", "MPI", "oneDNN", "cores"):
            self.assertIn(word, text)
        self.assertEqual(run("info", "--configuration-reference")[1], (SOURCE / "docs/configuration.md").read_text())

    def test_tokenize_by_bytes(self):
        (self.folder / "a.txt").write_text("abc")
        (self.folder / "b.txt").write_text("defgh")
        output = self.folder / "x.tokens"
        code, text, _ = run("tokenize", output, "--text", self.folder / "*.txt")
        self.assertEqual(code, 0)
        self.assertIn("10 tokens of 257 (8 bytes in 2 files", text)  # 8 bytes and 2 ends of text
        before = output.read_bytes()
        self.refused("tokenize", output, "--text", self.folder / "*.txt", words=("is there already", "--replace"))
        self.assertEqual(output.read_bytes(), before)
        self.assertEqual(run("tokenize", output, "--replace", "--text", self.folder / "a.txt")[0], 0)
        self.assertNotEqual(output.read_bytes(), before)

    def test_tokenize_by_sentencepiece(self):
        (self.folder / "a.txt").write_text("the cat sat on the mat with the other cat\n" * 50)
        output = self.folder / "x.tokens"
        arguments = ("--tokenizer", "sentencepiece", "--text", self.folder / "a.txt")
        code, text, messages = run("tokenize", output, *arguments, "--vocabulary", 280)
        self.assertEqual(code, 0, messages)
        self.assertTrue((self.folder / "x.model").exists())
        again = self.folder / "y.tokens"
        self.assertEqual(run("tokenize", again, *arguments, "--model", self.folder / "x.model")[0], 0)
        self.assertEqual(again.read_bytes(), output.read_bytes())
        self.refused("tokenize", self.folder / "z.tokens", *arguments, "--vocabulary", 5, words=("vocabulary_size=5",))
        self.refused("tokenize", self.folder / "z.tokens", *arguments, "--model", self.folder / "a.txt", words=("a.txt",))
        self.assertFalse((self.folder / "z.tokens").exists())

    def test_tokenize_tells_all_problems_at_once(self):
        messages = self.refused("tokenize", self.folder / "x", "--tokenizer", "words", "--model", "m", "--seed", "-1")
        self.assertEqual(len(messages), 4, messages)
        self.refused("tokenize", self.folder / "x", "--text", self.folder / "none*", words=("none*",))
        self.refused("tokenize", "/nowhere/x", "--text", __file__, words=("/nowhere/x",))


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
