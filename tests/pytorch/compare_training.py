"""Trains the same random GPT-2 on the same tokens in PyTorch and in Annulus, on one rank and on meshes, and compares
the loss of every step and the weights at the end. Prints a table of deviations; exit code 0 or 1.

usage: compare_training.py ANNULUS_PROGRAM [--seed N] [--keep FOLDER]
The python3 of tests/oracle.sh has what it needs.
"""

import argparse
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile

import safetensors.torch
import torch

import oracle

STEPS = 20
LOSS_TOLERANCE = 2e-5    # relative, at every step
WEIGHT_TOLERANCE = 1e-4  # of a tensor, in norm
SOURCE = pathlib.Path(__file__).resolve().parents[2]

# name, ranks, settings. The batch is 8 sequences.
MESHES = [
    ("1 rank", 1, []),
    ("1 rank, 4 micro-batches", 1, ["batch.micro_sequences=2"]),
    ("tp2", 2, ["parallel.tp=2"]),
    ("tp2 sp", 2, ["parallel.tp=2", "parallel.sequence_parallel=true"]),
    ("cp2 contiguous", 2, ["parallel.cp=2", "parallel.layout=contiguous"]),
    ("cp2 striped", 2, ["parallel.cp=2", "parallel.layout=striped"]),
    ("cp2 zigzag", 2, ["parallel.cp=2", "parallel.layout=zigzag"]),
    ("dp2", 2, ["parallel.dp=2"]),
    ("dp2, 2 micro-batches", 2, ["parallel.dp=2", "batch.micro_sequences=2"]),
    ("tp2 cp2 zigzag", 4, ["parallel.tp=2", "parallel.cp=2", "parallel.layout=zigzag"]),
    ("tp2 cp2 striped sp, 2 micro-batches", 4, ["parallel.tp=2", "parallel.cp=2", "parallel.layout=striped",
                                               "parallel.sequence_parallel=true", "batch.micro_sequences=4"]),
    ("tp2 cp2 dp2 zigzag", 8, ["parallel.tp=2", "parallel.cp=2", "parallel.dp=2", "parallel.layout=zigzag"]),
    ("tp2 cp2 dp2 contiguous sp, 2 micro-batches", 8,
     ["parallel.tp=2", "parallel.cp=2", "parallel.dp=2", "parallel.layout=contiguous",
      "parallel.sequence_parallel=true", "batch.micro_sequences=2"]),
]


def draw_config(draw):
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
            "data": {"shuffle": False}, "training": {"steps": STEPS}, "device": {"threads": 1}}


def mpirun(ranks, command):
    """Starts `command` on ranks that may outnumber the cores; its output is shown where it fails."""
    script = f'source "{SOURCE}/launch/mpi_environment.sh"; exec mpirun -n {ranks} "$@"'
    done = subprocess.run(["bash", "-c", script, "mpirun", *map(str, command)], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, check=False, timeout=300)
    if done.returncode != 0:
        sys.exit(f"compare_training: exit code {done.returncode} of {ranks} x {' '.join(map(str, command))}\n{done.stdout}")
    return done.stdout


def weight_deviations(expected, found):
    """{tensor: norm of the difference / norm}. Key biases are left out: their gradient is rounding noise, which Adam
    turns into steps."""
    deviations = {}
    for name, ours in found.items():
        theirs = expected[name]
        if name.endswith("attn.c_attn.bias"):
            width = theirs.shape[0] // 3
            ours, theirs = (torch.cat([t[:width], t[2 * width:]]) for t in (ours, theirs))
        deviations[name] = ((ours - theirs).norm() / theirs.norm()).item()
    return deviations


def compare(name, folder, history, expected):
    """Prints a row of the table; whether the run stays within the tolerances."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    steps = [line for line in lines if "gradient_norm" in line]
    found = safetensors.torch.load_file(next(folder.glob(f"**/weights-{STEPS}/model.safetensors")))
    if len(steps) != len(history) or found.keys() != expected.keys():
        print(f"{name:44} {len(steps)} steps of {len(history)}, {len(found)} tensors of {len(expected)}: FAILED")
        return False
    loss, norm, rate = (max(abs(step[key] / value[column] - 1) for step, value in zip(steps, history))
                        for column, key in enumerate(("loss", "gradient_norm", "learning_rate")))
    deviations = weight_deviations(expected, found)
    worst = max(deviations, key=deviations.get)
    good = loss <= LOSS_TOLERANCE and deviations[worst] <= WEIGHT_TOLERANCE and rate <= 1e-9
    print(f"{name:44} {loss:9.1e} {norm:9.1e} {deviations[worst]:9.1e}  {worst:26} {'ok' if good else 'FAILED'}", flush=True)
    return good


def run(program, seed, folder):
    draw = random.Random(seed)
    config = draw_config(draw)
    batch = config["batch"]
    ids = [draw.randrange(config["model"]["vocabulary"])
           for _ in range(STEPS * batch["global_sequences"] * batch["sequence_length"] + 1)]
    model = oracle.random_model(config["model"], seed)
    oracle.save(model, folder / "initial", draw.choice(["", oracle.PREFIX]))
    oracle.write_tokens(folder / "tokens.bin", ids)
    config["data"]["file"] = str(folder / "tokens.bin")
    config["training"]["initial_weights"] = str(folder / "initial")
    oracle.write_json(folder / "config.json", config)
    print(f"seed {seed}; model {config['model']}; optimizer {config['optimizer']}")
    history = oracle.train(model, oracle.batches(ids, batch["sequence_length"], batch["global_sequences"]),
                           config["optimizer"], STEPS)
    expected = oracle.tensors_of(model)
    print(f"PyTorch {torch.__version__}: loss {history[0][0]:.6f} ... {history[-1][0]:.6f}, gradient norms "
          f"{min(h[1] for h in history):.3f} to {max(h[1] for h in history):.3f}\n")
    print(f"{'largest deviation, relative':44} {'loss':>9} {'norm':>9} {'weights':>9}  {'of them'}")
    good = True
    for index, (name, ranks, settings) in enumerate(MESHES):
        output = folder / f"run-{index}"
        overrides = [f"--set={setting}" for setting in [*settings, f"output.folder={output}"]]
        mpirun(ranks, [program, "train", folder / "config.json", *overrides])
        good = compare(name, output, history, expected) and good
    print(f"tolerance: loss {LOSS_TOLERANCE:.0e} at every step, weights {WEIGHT_TOLERANCE:.0e} in norm, per tensor")
    return good


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program", type=pathlib.Path)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(3), "little"))
    parser.add_argument("--keep", type=pathlib.Path, help="a new folder for all files")
    arguments = parser.parse_args()
    if arguments.keep:
        arguments.keep.mkdir(parents=True)
        return run(arguments.program.resolve(), arguments.seed, arguments.keep.resolve())
    with tempfile.TemporaryDirectory(prefix="annulus-pytorch-") as folder:
        return run(arguments.program.resolve(), arguments.seed, pathlib.Path(folder))


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
