"""Annulus as a program: configurations of small random models, and how it is started on ranks."""

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile

SOURCE = pathlib.Path(__file__).resolve().parents[2]


def draw_config(draw, steps):
    """A run's configuration; what is random in it is drawn from `draw`."""
    hidden, heads = draw.choice([(48, 4), (64, 4), (64, 8)])
    model = {"layers": draw.choice([2, 3]), "hidden": hidden, "heads": heads, "ffn": draw.choice([3, 4]) * hidden,
             "vocabulary": 211, "vocabulary_padding": 8, "block_size": 32 + draw.choice([0, 9]),
             "activation": draw.choice(["gelu_tanh", "gelu_erf"]), "layer_norm_epsilon": draw.choice([1e-5, 1e-6])}
    schedule = draw.choice(["cosine", "linear", "constant_then_decay"])
    optimizer = {"learning_rate": 1e-3, "minimum_learning_rate": 1e-4, "schedule": schedule, "warmup_steps": 5,
                 "decay_steps": 10 if schedule == "constant_then_decay" else 0, "beta1": 0.9, "beta2": 0.95,
                 "epsilon": 1e-8, "weight_decay": 0.1, "clip_norm": 1.0}
    return {"model": model, "optimizer": optimizer, "batch": {"sequence_length": 32, "global_sequences": 8},
            "data": {"shuffle": False}, "training": {"steps": steps}, "device": {"threads": 1}}


def mpirun(ranks, command):
    """Starts `command` on ranks that may outnumber the cores; its output is shown where it fails."""
    script = f'source "{SOURCE}/launch/mpi_environment.sh"; exec mpirun -n {ranks} "$@"'
    done = subprocess.run(["bash", "-c", script, "mpirun", *map(str, command)], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, check=False, timeout=300)
    if done.returncode != 0:
        sys.exit(f"exit code {done.returncode} of {ranks} x {' '.join(map(str, command))}\n{done.stdout}")
    return done.stdout


def main(description, run, options=None):
    """Calls `run(program, seed, folder)` with a fresh seed, or the one asked for; exit code 0 where it returns True. Where there
    are `options`, it adds them to a parser, and `run` is given the parsed arguments, too."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("program", type=pathlib.Path)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(3), "little"))
    parser.add_argument("--keep", type=pathlib.Path, help="a new folder for all files")
    if options:
        options(parser)
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}")
    with tempfile.TemporaryDirectory(prefix="annulus-pytorch-") as temporary:
        folder = arguments.keep.resolve() if arguments.keep else pathlib.Path(temporary)
        if arguments.keep:
            folder.mkdir(parents=True)
        more = [arguments] if options else []
        sys.exit(0 if run(arguments.program.resolve(), arguments.seed, folder, *more) else 1)
