"""Jobs of several ranks as a user meets them:  ranks_test.py PROGRAM SOURCE_FOLDER."""

import json
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
import unittest

from command_line_test import run

CONFIG = {
    "model": {"layers": 2, "hidden": 48, "heads": 4, "initial_std": 0.1},
    "data": {"validation_fraction": 0.1},
    "batch": {"sequence_length": 32, "global_sequences": 4},
    "optimizer": {"learning_rate": 1e-3},
    "training": {"steps": 4},
    "device": {"threads": 1},
}


class RanksTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.shared = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.shared.cleanup)
        folder = pathlib.Path(cls.shared.name)
        seed = random.SystemRandom().randrange(1 << 30)
        print("seed", seed)
        draw = random.Random(seed)
        (folder / "text.txt").write_text("".join(draw.choice("abcdefgh \n") for _ in range(20000)))
        cls.tokens = folder / "text.tokens"
        assert run("tokenize", cls.tokens, "--text", folder / "text.txt")[0] == 0
        cls.profile = folder / "profile.json"
        cls.config = folder / "tiny.json"
        cls.config.write_text(json.dumps(CONFIG))
        code, _, messages = run("train", cls.config, *cls.settings(cls, folder / "first"), ranks=2)
        assert code == 0, messages
        (folder / "first" / "profile.json").rename(cls.profile)

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def settings(self, output, *more):
        known = [f"log.profile={self.profile}"] if self.profile.exists() else []
        pairs = [f"data.file={self.tokens}", f"output.folder={output}", *known, *more]
        return [word for pair in pairs for word in ("--set", pair)]

    def train(self, name, *more, ranks=0):
        output = self.folder / name
        code, text, messages = run("train", self.config, *self.settings(output, *more), ranks=ranks)
        self.assertEqual(code, 0, messages)
        rows = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
        return output, text, rows

    def refused(self, *words, more=(), ranks=2, output=None, arguments=()):
        """The one message that must hold all words; nothing may be left behind."""
        output = output or self.folder / "refused"
        code, _, messages = run("train", self.config, *self.settings(output, *more), *arguments, ranks=ranks)
        self.assertEqual(code, 2, messages)
        ours = [line for line in messages.splitlines() if line.startswith("annulus: ")]
        for word in words:
            self.assertTrue(any(word in line for line in ours), (word, messages))
        self.assertEqual(len(set(ours)), len(ours), "a message stands twice")
        self.assertFalse((self.folder / "refused").exists())

    def test_gpus_that_are_not_there(self):
        has_cuda = any(line.startswith("CUDA ") for line in run("info")[1].splitlines())
        if has_cuda and pathlib.Path("/dev/nvidiactl").exists():
            self.skipTest("a GPU is there")
        self.refused("device.kind=cpu" if has_cuda else "cmake --preset cuda", more=["device.kind=cuda", "parallel.tp=2"])
        code, _, messages = run("calibrate", "--device", "cuda", "--output", self.folder / "x.json", ranks=2)
        self.assertEqual(code, 2, messages)
        self.assertFalse((self.folder / "x.json").exists())

    def test_a_run_leaves_its_folder(self):
        output, text, rows = self.train("run", "training.evaluate_every=2", "training.export_every=2", "parallel.tp=2", ranks=2)
        self.assertEqual(sorted(path.name for path in output.iterdir()),
                         ["config.json", "ledger.json", "metrics.jsonl", "run.json", "weights-2", "weights-4"])
        steps = [row for row in rows if "loss" in row]
        self.assertEqual([row["step"] for row in steps], [1, 2, 3, 4])
        self.assertEqual([row["step"] for row in rows if "validation_loss" in row], [2, 4])
        for row in steps:
            self.assertGreater(row["compute_seconds_largest"], 0)
            self.assertGreaterEqual(row["step_seconds"], row["compute_seconds_largest"])
            self.assertLessEqual(row["mfu_causal"], row["mfu_full"])
        self.assertIn("all_reduce", text)
        self.assertEqual(json.loads((output / "config.json").read_text())["parallel"]["dp"], 1)
        self.assertEqual(len(json.loads((output / "run.json").read_text())["hosts"]), 2)
        ledger = json.loads((output / "ledger.json").read_text())
        self.assertIn("layers.1.mlp.up", {op["scope"] for op in ledger["ops"]})

    def test_meshes_have_one_loss_curve(self):
        curves = {}
        for name, ranks, more in (("alone", 0, ()), ("tp", 2, ("parallel.tp=2", "parallel.sequence_parallel=true")),
                                  ("ring", 2, ("parallel.cp=2",)), ("dp", 2, ()),
                                  ("all", 8, ("parallel.tp=2", "parallel.cp=2"))):
            curves[name] = [row["loss"] for row in self.train(name, *more, ranks=ranks)[2] if "loss" in row]
        for name, curve in curves.items():
            for one, other in zip(curve, curves["alone"], strict=True):
                self.assertAlmostEqual(one / other, 1, delta=1e-5, msg=name)

    def test_a_resolved_configuration_runs_again_to_the_same_bits(self):
        first, _, rows = self.train("first", "parallel.cp=2", ranks=2)
        code, _, messages = run("train", first / "config.json", "--set", f"output.folder={self.folder / 'again'}", ranks=2)
        self.assertEqual(code, 0, messages)
        again = [json.loads(line) for line in (self.folder / "again/metrics.jsonl").read_text().splitlines()]
        self.assertEqual([row["loss"] for row in again], [row["loss"] for row in rows])
        weights = "weights-4/model.safetensors"
        self.assertEqual((self.folder / "again" / weights).read_bytes(), (first / weights).read_bytes())

    def test_weights_go_on_and_are_evaluated(self):
        first, _, rows = self.train("first", "training.evaluate_every=4")
        weights = f"training.initial_weights={first / 'weights-4'}"
        _, _, more = self.train("second", weights, "parallel.tp=2", "training.steps=1", ranks=2)
        self.assertLess(more[0]["loss"], rows[0]["loss"])
        texts = [run("evaluate", self.config, "--weights", first / "weights-4", "--tokens", self.tokens, "--sequences", 8,
                     ranks=ranks) for ranks in (0, 2)]
        self.assertEqual([code for code, _, _ in texts], [0, 0], texts)
        losses = [float(text.split()[1]) for _, text, _ in texts]
        self.assertAlmostEqual(losses[0], losses[1], places=5)

    def test_verify(self):
        for ranks, more in ((0, ()), (2, ("parallel.tp=2", "parallel.sequence_parallel=true")), (4, ("parallel.cp=4",)),
                            (8, ("parallel.tp=2", "parallel.cp=2", "parallel.layout=striped"))):
            code, text, messages = run("verify", self.config, *self.settings(self.folder / "none", *more), ranks=ranks)
            self.assertEqual(code, 0, text + messages)
            self.assertIn("steps equal", text)
            self.assertIn("counts equal on all ranks", text)
        code, text, _ = run("verify", self.config, "--as-configured", "--tolerance", "1e-30",
                            *self.settings(self.folder / "none", "parallel.tp=2"), ranks=2)
        self.assertEqual(code, 1)  # no sum of floats comes this near
        self.assertIn("DIFFER", text)

    def test_plan(self):
        arguments = self.settings(self.folder / "none", "parallel.tp=2", "parallel.cp=2")
        code, text, messages = run("plan", self.config, "--ranks", 8, "--rank", 7, *arguments)
        self.assertEqual(code, 0, messages)
        self.assertIn("rank 7 of 8 (dp 1 cp 1 tp 1)", text)
        self.assertIn("predicted on", text)
        self.assertNotIn("differ", text)
        self.assertIn("layers.1.mlp.up", run("plan", self.config, "--dump", *arguments)[1])
        # A contiguous ring is as slow as its last place, whichever rank is asked about.
        uneven = self.settings(self.folder / "none", "parallel.cp=2", "parallel.layout=contiguous", "batch.sequence_length=2048")
        texts = [run("plan", self.config, "--rank", rank, *uneven)[1] for rank in (0, 1)]
        steps, computes = zip(*(map(float, re.search(r": ([\d.]+) ms a step \(of this rank compute ([\d.]+)", text).groups()) for text in texts))
        self.assertEqual(steps[0], steps[1])
        self.assertLess(computes[0], computes[1])
        self.assertLessEqual(computes[1], steps[0] + 0.1)
        foreign = self.folder / "profile.json"
        foreign.write_text("{}")
        code, text, _ = run("plan", self.config, *arguments, "--set", f"log.profile={foreign}")
        self.assertEqual((code, text), (2, ""))
        # Kernels have scratch memory a thread: what is planned for as many is what a run takes, evaluation included.
        two = ("parallel.tp=2", "device.threads=2", "training.evaluate_every=4")
        _, told, rows = self.train("planned", *two, ranks=2)
        text = run("plan", self.config, "--ranks", 2, *self.settings(self.folder / "none", *two))[1]
        self.assertIn("2 threads:", text)
        step, evaluation = (float(number) for number in re.search(r"arena ([\d.]+) MiB a rank and ([\d.]+) to evaluate", told).groups())
        self.assertAlmostEqual(step, rows[0]["arena_bytes"] / 2**20, delta=0.05)
        planned = float(re.search(r"memory of the rank: ([\d.]+) MB in two arenas", text)[1])
        self.assertAlmostEqual(planned, (step + evaluation) * 2**20 / 1e6, delta=0.11)
        code, _, messages = run("plan", self.config, "--rank", 4, *arguments)
        self.assertEqual((code, messages), (2, "annulus: --rank=4 is out of range; the mesh has ranks 0 to 3\n"))

    def test_openmp_has_all_cores_though_mpirun_binds_a_rank_to_one(self):
        code, _, messages = run("info", ranks=1, OMP_DISPLAY_ENV="true")
        self.assertEqual(code, 0, messages)
        # Told each time that the program is loaded.
        counted = re.findall(r"OMP_NUM_THREADS\s*=\s*'(\d+)'", messages)
        self.assertTrue(counted, messages)
        self.assertEqual(counted[-1], os.environ.get("OMP_NUM_THREADS", str(len(os.sched_getaffinity(0)))))

    def test_openmp_is_told_to_bind_no_threads(self):
        cores = len(os.sched_getaffinity(0))
        for settings in ({"OMP_PROC_BIND": "close"}, {"OMP_PLACES": "cores"}, {"GOMP_CPU_AFFINITY": f"0-{os.cpu_count() - 1}"}):
            for ranks in (0, 1):
                with self.subTest(settings=settings, ranks=ranks):
                    code, text, messages = run("info", ranks=ranks, **settings)
                    self.assertEqual(code, 0, messages)
                    self.assertIn(f"host           {cores} core", text)

    def test_bad_options(self):
        for words in (("verify", self.config, "--tolerance", "-1"), ("verify", self.config, "--tolerance", "nan"),
                      ("calibrate", "--output", self.folder / "missing" / "x.json")):
            code, text, messages = run(*words, ranks=2)
            self.assertEqual((code, text), (2, ""), messages)
            self.assertIn("--tolerance" if "--tolerance" in words else "missing/x.json", messages)
        empty = self.folder / "empty.json"
        empty.write_text("")
        self.assertIn("no valid JSON", run("plan", empty)[2])

    def test_more_ranks_than_cores_are_told(self):
        for ranks in (2, 4):
            with self.subTest(ranks=ranks):
                _, text, _ = self.train(str(ranks), f"parallel.dp={ranks}", ranks=ranks)
                self.assertEqual("take turns" in text, ranks > len(os.sched_getaffinity(0)))

    def test_bad_configurations(self):
        self.refused("model.heads=4 cannot be split over parallel.tp=3", "trainin.steps", "did you mean training.steps?",
                     more=("parallel.tp=3", "trainin.steps=1", "model.layers=-1"))
        self.refused("does not divide the 1 ranks", more=("parallel.tp=2",), ranks=0)
        self.refused("does not divide the 3 ranks", more=("parallel.tp=2",), ranks=3)
        self.refused("--resume", "cannot be resumed", arguments=("--resume", "x"))

    def test_bad_files(self):
        missing, foreign, short = (self.folder / name for name in ("missing.tokens", "foreign.tokens", "short.tokens"))
        foreign.write_text("these are no tokens" * 20)
        short.write_bytes(self.tokens.read_bytes()[:-100])
        for path in (missing, foreign, short):
            self.refused(str(path), more=(f"data.file={path}",))
        self.refused("vocabulary", more=("model.vocabulary=100",))
        self.refused("sequence", more=("batch.sequence_length=32768", "batch.global_sequences=2"))
        self.refused("foreign.tokens", more=(f"training.initial_weights={foreign}",))
        self.refused("foreign.tokens", more=(f"log.profile={foreign}",))

    def test_bad_output_folders(self):
        first, _, _ = self.train("first")
        before = sorted((path, path.stat().st_mtime_ns) for path in first.rglob("*"))
        self.refused(str(first), "holds another run", output=first)
        self.assertEqual(sorted((path, path.stat().st_mtime_ns) for path in first.rglob("*")), before)
        (self.folder / "file").write_text("")
        self.refused("cannot be made", output=self.folder / "file" / "run")

    def test_of_runs_that_begin_at_once_in_one_folder_one_is_refused(self):
        words = [sys.argv[1], "train", str(self.config), *self.settings(self.folder / "one")]
        jobs = [subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) for _ in range(2)]
        messages = [job.communicate()[1] for job in jobs]
        self.assertEqual(sorted(job.returncode for job in jobs), [0, 2], messages)
        self.assertIn("holds another run", "".join(messages))
        self.assertEqual(len((self.folder / "one" / "metrics.jsonl").read_text().splitlines()), 4)

    def ends_with_one_message(self, messages, code, *words):
        """Of the first rank, for all of them."""
        ours = [line for line in messages.splitlines() if re.match(r"annulus: |\[rank", line)]
        self.assertEqual(len(ours), 1, messages)
        for word in words:
            self.assertIn(word, ours[0])
        self.assertIn(f"Exit code:    {code}", messages)

    def test_a_loss_that_is_not_finite_ends_the_run_with_one_message(self):
        first, _, _ = self.train("first", "training.steps=1")
        weights = first / "weights-1" / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\xc0\x7f")  # the last element is no number
        for more, words in (("optimizer.learning_rate=1e30", ("step 2: loss", "learning_rate")),
                            (f"training.initial_weights={weights}", ("step 1: loss", "initial_weights"))):
            _, _, messages = run("train", self.config, *self.settings(self.folder / words[1], more, "parallel.tp=2"), ranks=2)
            self.ends_with_one_message(messages, 1, *words)

    def test_weights_that_cannot_be_written_end_the_run_with_one_message(self):
        output = self.folder / "run"
        job, _ = self.begin(output, "parallel.tp=2", "training.export_every=1000")
        (output / "weights-1000").write_text("a file where the folder should be")
        self.ends_with_one_message(job.communicate(timeout=60)[0], 2, "weights-1000", "cannot be made")

    def test_a_plan_beyond_memory_is_refused(self):
        self.refused("GiB", "available", more=("model.hidden=400000", "model.head_dim=16"))

    def test_where_arenas_are_not_shared_log_and_ledger_say_so(self):
        # Files of at most 16 MiB, and so no larger ones in memory: the arenas are, the slots are not.
        limited = ["mpirun", "-n", "2", "bash", "-c", """trap '' XFSZ; ulimit -f 16384; exec "$@" """, "bash"]
        output = self.folder / "copied"
        job = subprocess.run([*limited, sys.argv[1], "train", self.config, *self.settings(output, "parallel.tp=2", "model.hidden=320")],
                             capture_output=True, text=True, check=False)
        self.assertEqual(job.returncode, 0, job.stdout + job.stderr)
        self.assertIn("share no memory for their arenas", job.stdout)
        ledger = json.loads((output / "ledger.json").read_text())
        self.assertEqual({op["transport"] for op in ledger["ops"] if op["axes"]}, {"slots"})

    def begin(self, output, *mesh):
        """A long job of two ranks and the processes of these, when a step is done."""
        command = ["mpirun", "-n", "2", sys.argv[1], "train", str(self.config),
                   *self.settings(output, "training.steps=1000000", *mesh or ("parallel.tp=2",))]
        job = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        wait_for_a_step(self, job, job.kill, output)
        return job, self.ranks_of(output)

    def ranks_of(self, output):
        return [rank for rank in processes() if str(output) in command_of(rank) and "mpirun" not in command_of(rank)]

    def end_of(self, name, how, message, *mesh):
        """A signal to the rank of a process while its job trains: what the others say of it, and what they leave behind."""
        shared = set(os.listdir("/dev/shm"))
        job, ranks = self.begin(self.folder / name, *mesh)
        self.assertEqual(len(ranks), 2)
        time.sleep(random.uniform(0, 0.2))  # steps take a few milliseconds: anywhere in one
        begin = time.monotonic()
        os.kill(ranks[1], how)
        text, _ = job.communicate()
        print(f"{name}: the job ended after {time.monotonic() - begin:.1f} s")
        self.assertNotEqual(job.returncode, 0)
        self.assertRegex(text, message)
        self.assertEqual([rank for rank in ranks if "annulus" in command_of(rank)], [])
        self.assertEqual(left_behind(set(os.listdir("/dev/shm")) - shared), [])

    def test_a_killed_rank_ends_the_job(self):
        # Direct all-reduces; gathers and scatters of activations; a ring; the buckets of an optimizer that is sharded.
        for name, mesh in (("tp", ("parallel.tp=2",)), ("sp", ("parallel.tp=2", "parallel.sequence_parallel=true")),
                           ("ring", ("parallel.cp=2",)), ("sharded", ("parallel.dp=2",))):
            with self.subTest(name):
                self.end_of(name, signal.SIGKILL, r"rank [01] died|process rank [01]", *mesh)

    def test_a_stopped_rank_ends_the_job(self):
        profile = self.folder / "profile.json"
        calibration = subprocess.Popen(["mpirun", "-n", "2", sys.argv[1], "calibrate", "--output", str(profile)],
                                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.addCleanup(calibration.stdout.close)
        self.addCleanup(calibration.kill)
        self.assertEqual(calibration.stdout.readline(), "measuring 2 ranks\n")
        time.sleep(1)  # till they are watched
        os.kill(self.ranks_of(profile)[1], signal.SIGSTOP)
        self.end_of("stopped", signal.SIGSTOP, r"rank [01] has sent no heartbeat", "parallel.dp=2")
        self.assertRegex(calibration.communicate(timeout=60)[0], r"rank [01] has sent no heartbeat")
        self.assertNotEqual(calibration.returncode, 0)
        self.assertFalse(profile.exists())

    def test_a_signal_ends_the_run_in_good_order(self):
        output = self.folder / "stopped"
        _, ranks = self.begin(output)
        os.kill(ranks[0], signal.SIGTERM)
        deadline = time.monotonic() + 60
        while not (output / "ledger.json").exists():
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.1)
        self.assertEqual(len(list(output.glob("weights-*/model.safetensors"))), 1)


def wait_for_a_step(test, job, end, output):
    """Until one is done of a job that writes to `output`, and that `end` ends when the test does."""
    test.addCleanup(job.stdout.close)
    test.addCleanup(job.wait)
    test.addCleanup(end)
    while not (output / "metrics.jsonl").exists() or not (output / "metrics.jsonl").read_text():
        test.assertIsNone(job.poll())
        time.sleep(0.1)


def processes():
    return [int(path.name) for path in pathlib.Path("/proc").iterdir() if path.name.isdigit()]


def left_behind(names):
    """Which of these files in /dev/shm no process has mapped: other jobs have theirs."""
    mapped = "".join(text_of(process, "maps") for process in processes())
    return [name for name in names if f"/dev/shm/{name}\n" not in mapped and os.path.exists(f"/dev/shm/{name}")]


def command_of(process):
    return text_of(process, "cmdline")


def text_of(process, file):
    try:
        return pathlib.Path(f"/proc/{process}/{file}").read_text()
    except OSError:
        return ""


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
