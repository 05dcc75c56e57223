"""Weights that transformers wrote give the same loss in Annulus, and weights that Annulus wrote in transformers.
Prints a table of deviations; exit code 0 or 1.

usage: compare_evaluation.py ANNULUS [--seed N] [--keep FOLDER]
The python3 of tests/oracle.sh has what it needs.
"""

import random
import re

import safetensors.torch
import torch
import transformers

import oracle
import program

SEQUENCES = 13  # the last batch is not full
TOLERANCE = 2e-6  # of the loss, relative; it is printed with six decimals

MESHES = [("1 rank", 1, []), ("tp2 sp", 2, ["parallel.tp=2", "parallel.sequence_parallel=true"]),
          ("cp2 striped", 2, ["parallel.cp=2", "parallel.layout=striped"]), ("dp2", 2, ["parallel.dp=2"]),
          ("tp2 cp2 zigzag", 4, ["parallel.tp=2", "parallel.cp=2"])]


def write_half(model, folder, dtype):
    """Weights of 16 bits, with a head and the masks that older files keep."""
    tensors = {name: value.to(dtype) for name, value in oracle.tensors_of(model).items()}
    tensors["lm_head.weight"] = tensors["wte.weight"].clone()
    size = model.config.n_positions
    for layer in range(model.config.n_layer):
        tensors[f"h.{layer}.attn.bias"] = torch.ones(1, 1, size, size, dtype=torch.uint8).tril()
        tensors[f"h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
    folder.mkdir()
    safetensors.torch.save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    model.load_state_dict({name: value.to(dtype).float() for name, value in model.state_dict().items()})


def write_variants(model, folder):
    """(name, folder) of every way to write them; the last ones round the model's weights."""
    model.save_pretrained(folder / "whole", safe_serialization=True)
    model.save_pretrained(folder / "shards", safe_serialization=True, max_shard_size="100KB")
    model.transformer.save_pretrained(folder / "base", safe_serialization=True)  # names have no prefix
    yield from ((name, folder / name) for name in ("whole", "shards", "base"))
    for name, dtype in (("bf16", torch.bfloat16), ("f16", torch.float16)):
        write_half(model, folder / name, dtype)
        yield name, folder / name


def annulus_loss(annulus, folder, weights, ranks, settings):
    overrides = [f"--set={setting}" for setting in settings]
    text = program.mpirun(ranks, [annulus, "evaluate", folder / "config.json", "--weights", weights,
                                  "--tokens", folder / "tokens.bin", *overrides])
    return float(re.search(r"loss ([0-9.]+)", text).group(1))


def row(name, ours, theirs):
    deviation = abs(ours / theirs - 1)
    good = deviation <= TOLERANCE
    print(f"{name:44} {theirs:.6f} {ours:.6f} {deviation:9.1e} {'ok' if good else 'FAILED'}", flush=True)
    return good


def check_exported(annulus, folder, batch):
    """transformers reads what a short run wrote: no tensor is missing or left over, and the loss is the same."""
    program.mpirun(2, [annulus, "train", folder / "config.json", "--set=parallel.tp=2", f"--set=output.folder={folder}/run"])
    weights = folder / "run" / "weights-2"
    model, info = transformers.GPT2LMHeadModel.from_pretrained(weights, output_loading_info=True)
    problems = {key: value for key, value in info.items() if value}
    if problems:
        print(f"from_pretrained({weights.name}): {problems}: FAILED")
    model.eval()
    ours = annulus_loss(annulus, folder, weights, 2, ["parallel.cp=2"])
    with torch.no_grad():
        return row("written by Annulus, cp2", ours, oracle.loss_of(model, *batch).item()) and not problems


def run(annulus, seed, folder):
    draw = random.Random(seed)
    config = program.draw_config(draw, 2)
    config["optimizer"].update(warmup_steps=0, decay_steps=0)
    length = config["batch"]["sequence_length"]
    ids = [draw.randrange(config["model"]["vocabulary"]) for _ in range(SEQUENCES * length + 1)]
    oracle.write_tokens(folder / "tokens.bin", ids)
    config["data"]["file"] = str(folder / "tokens.bin")
    oracle.write_json(folder / "config.json", config)
    batch = next(oracle.batches(ids, length, SEQUENCES))
    model = oracle.random_model(config["model"], seed).eval()
    print(f"model {config['model']}\n\n{'loss':44} {'PyTorch':8} {'Annulus':8} {'deviation':9}")
    good = True
    for index, (name, weights) in enumerate(write_variants(model, folder)):
        with torch.no_grad():
            expected = oracle.loss_of(model, *batch).item()
        for mesh, ranks, settings in MESHES if index == 0 else MESHES[-1:]:
            good = row(f"{name}, {mesh}", annulus_loss(annulus, folder, weights, ranks, settings), expected) and good
    return check_exported(annulus, folder, batch) and good


if __name__ == "__main__":
    program.main(__doc__, run)
