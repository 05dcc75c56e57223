"""Trains a random GPT-2 on random tokens in PyTorch and writes what compare_training.py compares with to a new folder:
config.json, tokens.bin, initial/, history.json, trained.safetensors.

usage: record_training.py FOLDER [--seed N]
The python3 of tests/oracle.sh has what it needs.
"""

import argparse
import os
import pathlib
import random

import safetensors.torch
import torch

import oracle
import program

STEPS = 20


def record(folder, seed):
    draw = random.Random(seed)
    config = program.draw_config(draw, STEPS)
    batch = config["batch"]
    ids = [draw.randrange(config["model"]["vocabulary"])
           for _ in range(STEPS * batch["global_sequences"] * batch["sequence_length"] + 1)]
    model = oracle.random_model(config["model"], seed)
    oracle.save(model, folder / "initial", draw.choice(["", oracle.PREFIX]))
    oracle.write_tokens(folder / "tokens.bin", ids)
    oracle.write_json(folder / "config.json", config)
    print(f"model {config['model']}\noptimizer {config['optimizer']}")
    history = oracle.train(model, oracle.batches(ids, batch["sequence_length"], batch["global_sequences"]),
                           config["optimizer"], STEPS)
    safetensors.torch.save_file(oracle.tensors_of(model), folder / "trained.safetensors")
    print(f"PyTorch {torch.__version__}: loss {history[0][0]:.6f} ... {history[-1][0]:.6f}, gradient norms "
          f"{min(h[1] for h in history):.3f} to {max(h[1] for h in history):.3f}\n")
    oracle.write_json(folder / "history.json", history)  # last: whoever finds it finds all


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(3), "little"))
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True)
    record(arguments.folder, arguments.seed)
