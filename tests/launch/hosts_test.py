"""Runs over hosts that are network namespaces, against the same on one host:  hosts_test.py PROGRAM SOURCE_FOLDER.

Needs root and iproute2; ends with 77 (skipped) where there are none."""

import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import unittest

from command_line_test import run
from ranks_test import CONFIG, command_of, processes, wait_for_a_step

HOSTS = pathlib.Path(sys.argv[2]) / "tests/collectives/hosts.sh"
SKIPPED = 77


class HostsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)
        seed = random.SystemRandom().randrange(1 << 30)
        print("seed", seed)
        draw = random.Random(seed)
        (cls.folder / "text.txt").write_text("".join(draw.choice("abcdefgh \n") for _ in range(20000)))
        cls.tokens = cls.folder / "text.tokens"
        assert run("tokenize", cls.tokens, "--text", cls.folder / "text.txt")[0] == 0
        (cls.folder / "config.json").write_text(json.dumps(CONFIG))

    def words(self, name, *settings):
        pairs = [f"data.file={self.tokens}", f"output.folder={self.folder / name}", *settings]
        return ["train", str(self.folder / "config.json"), *[word for pair in pairs for word in ("--set", pair)]]

    def on_hosts(self, *words):
        return subprocess.Popen([HOSTS, sys.argv[1], *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def losses(self, name):
        rows = [json.loads(line) for line in (self.folder / name / "metrics.jsonl").read_text().splitlines()]
        return [row["loss"] for row in rows if "loss" in row]

    def test_two_hosts_have_the_loss_curve_of_one(self):
        profile = self.folder / "profile.json"
        job = self.on_hosts("calibrate", "--quick", "--output", str(profile))
        text, _ = job.communicate()
        self.assertEqual(job.returncode, 0, text)
        measured = json.loads(profile.read_text())
        self.assertEqual(measured["ranks_per_host"], 2)
        self.assertTrue({"hierarchical", "messages", "direct"} <= {entry["transport"] for entry in measured["collectives"]})
        for mesh in (("parallel.tp=2",), ("parallel.cp=2", "parallel.tp=2")):
            one, two = f"one-{'-'.join(mesh)}", f"two-{'-'.join(mesh)}"
            code, _, messages = run(*self.words(one, f"log.profile={profile}", *mesh), ranks=4)
            self.assertEqual(code, 0, messages)
            job = self.on_hosts(*self.words(two, f"log.profile={profile}", *mesh))
            text, _ = job.communicate()
            self.assertEqual(job.returncode, 0, text)
            for here, there in zip(self.losses(one), self.losses(two), strict=True):
                self.assertAlmostEqual(there / here, 1, delta=1e-5, msg=mesh)
            ledger = json.loads((self.folder / two / "ledger.json").read_text())
            self.assertTrue({op["transport"] for op in ledger["ops"]} & {"hierarchical", "messages"}, mesh)

    def test_a_killed_rank_ends_the_job(self):
        output = self.folder / "killed"
        job = self.on_hosts(*self.words("killed", "training.steps=1000000", "parallel.tp=2"))
        wait_for_a_step(self, job, job.terminate, output)
        ranks = [rank for rank in processes() if command_of(rank).startswith(sys.argv[1] + "\0") and str(output) in command_of(rank)]
        self.assertEqual(len(ranks), 4)
        os.kill(max(ranks), signal.SIGKILL)
        text, _ = job.communicate()
        self.assertNotEqual(job.returncode, 0)
        self.assertRegex(text, r"rank [0-3] died|process rank [0-3]")
        self.assertEqual([rank for rank in ranks if str(output) in command_of(rank)], [])


if __name__ == "__main__":
    probe = subprocess.run([HOSTS, "--ranks", "1", "true"], capture_output=True, text=True)
    if probe.returncode == SKIPPED:
        print(probe.stdout, end="")
        sys.exit(SKIPPED)
    unittest.main(argv=sys.argv[:1])
