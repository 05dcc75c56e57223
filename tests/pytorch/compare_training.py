"""Trains the same random GPT-2 on the same tokens in PyTorch and in Annulus, on one rank and on meshes, and compares
the loss of every step and the weights at the end. Prints a table of deviations; exit code 0 or 1.

usage: compare_training.py ANNULUS [--seed N] [--keep FOLDER] [--set PATH=VALUE]... [--most-ranks N]
The python3 of tests/oracle.sh has what it needs.
"""

import json
import random

import safetensors.torch
import torch

import oracle
import program

STEPS = 20
LOSS_TOLERANCE = 2e-5    # relative, at every step
WEIGHT_TOLERANCE = 1e-4  # of a tensor, in norm

# name, ranks, settings. The batch is 8 sequences. The first run measures a hardware profile, which the others use.
MESHES = [
    ("tp2", 2, ["parallel.tp=2"]),
    ("1 rank", 1, []),
    ("1 rank, 4 micro-batches", 1, ["batch.micro_sequences=2"]),
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


def compare(name, folder, history, expected, arguments):
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
    good = loss <= arguments.loss_tolerance and deviations[worst] <= arguments.weight_tolerance and rate <= 1e-9
    print(f"{name:44} {loss:9.1e} {norm:9.1e} {deviations[worst]:9.1e}  {worst:26} {'ok' if good else 'FAILED'}", flush=True)
    return good


def run(annulus, seed, folder, arguments):
    draw = random.Random(seed)
    config = program.draw_config(draw, STEPS)
    batch = config["batch"]
    ids = [draw.randrange(config["model"]["vocabulary"])
           for _ in range(STEPS * batch["global_sequences"] * batch["sequence_length"] + 1)]
    model = oracle.random_model(config["model"], seed)
    oracle.save(model, folder / "initial", draw.choice(["", oracle.PREFIX]))
    oracle.write_tokens(folder / "tokens.bin", ids)
    config["data"]["file"] = str(folder / "tokens.bin")
    config["training"]["initial_weights"] = str(folder / "initial")
    oracle.write_json(folder / "config.json", config)
    print(f"model {config['model']}\noptimizer {config['optimizer']}")
    history = oracle.train(model, oracle.batches(ids, batch["sequence_length"], batch["global_sequences"]),
                           config["optimizer"], STEPS)
    expected = oracle.tensors_of(model)
    print(f"PyTorch {torch.__version__}: loss {history[0][0]:.6f} ... {history[-1][0]:.6f}, gradient norms "
          f"{min(h[1] for h in history):.3f} to {max(h[1] for h in history):.3f}\n")
    print(f"{'largest deviation, relative':44} {'loss':>9} {'norm':>9} {'weights':>9}  {'of them'}")
    good = True
    for index, (name, ranks, settings) in enumerate(MESHES):
        if ranks > arguments.most_ranks:
            continue
        output = folder / f"run-{index}"
        overrides = [f"--set={setting}" for setting in [*settings, *arguments.set, f"output.folder={output}"]]
        profile = next(folder.glob("run-*/profile.json"), None)
        if profile:
            overrides.append(f"--set=log.profile={profile}")
        program.mpirun(ranks, [annulus, "train", folder / "config.json", *overrides])
        good = compare(name, output, history, expected, arguments) and good
    print(f"tolerance: loss {arguments.loss_tolerance:.0e} at every step, weights {arguments.weight_tolerance:.0e} in norm, per tensor")
    return good


def options(parser):
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", help="a setting of every run")
    parser.add_argument("--most-ranks", type=int, default=8, help="leave meshes of more ranks out")
    parser.add_argument("--loss-tolerance", type=float, default=LOSS_TOLERANCE)
    parser.add_argument("--weight-tolerance", type=float, default=WEIGHT_TOLERANCE)


if __name__ == "__main__":
    program.main(__doc__, run, options)
