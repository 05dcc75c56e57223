"""Trains the same random GPT-2 on the same tokens in PyTorch and in Annulus, on one rank and on meshes, and compares
the loss of every step and the weights at the end. Prints a table of deviations; exit code 0 or 1.

usage: compare_training.py ANNULUS [--seed N] [--keep FOLDER] [--set PATH=VALUE]... [--most-ranks N] [--recorded FOLDER]
PyTorch's part is record_training.py's, for which the python3 of tests/oracle.sh has what it needs; with --recorded it was
done before, elsewhere, and any python3 will do.
"""

import array
import json
import math
import pathlib
import struct
import subprocess
import sys

import program

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


def tensors_in(path):
    """{name: numbers} of a safetensors file of f32."""
    raw = path.read_bytes()
    begin = 8 + struct.unpack("<Q", raw[:8])[0]
    entries = json.loads(raw[8:begin])
    entries.pop("__metadata__", None)
    tensors = {}
    for name, entry in entries.items():
        if entry["dtype"] != "F32":
            raise ValueError(f"{path}: {name} is {entry['dtype']}, not F32")
        first, last = entry["data_offsets"]
        tensors[name] = array.array("f", raw[begin + first:begin + last])
    return tensors


def weight_deviations(expected, found):
    """{tensor: norm of the difference / norm}. Key biases are left out: their gradient is rounding noise, which Adam
    turns into steps."""
    deviations = {}
    for name, ours in found.items():
        theirs = expected[name]
        if name.endswith("attn.c_attn.bias"):
            width = len(theirs) // 3
            ours, theirs = (t[:width] + t[2 * width:] for t in (ours, theirs))
        deviations[name] = math.dist(ours, theirs) / math.hypot(*theirs)
    return deviations


def compare(name, folder, history, expected, arguments):
    """Prints a row of the table; whether the run stays within the tolerances."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    steps = [line for line in lines if "gradient_norm" in line]
    found = tensors_in(next(folder.glob(f"**/weights-{len(history)}/model.safetensors")))
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
    recorded = arguments.recorded.resolve() if arguments.recorded else folder / "pytorch"
    if not arguments.recorded:
        record = pathlib.Path(__file__).with_name("record_training.py")
        subprocess.run([sys.executable, record, recorded, "--seed", str(seed)], check=True)
    history = json.loads((recorded / "history.json").read_text(encoding="utf-8"))
    expected = tensors_in(recorded / "trained.safetensors")
    sources = [f"data.file={recorded / 'tokens.bin'}", f"training.initial_weights={recorded / 'initial'}"]
    print(f"{'largest deviation, relative':44} {'loss':>9} {'norm':>9} {'weights':>9}  {'of them'}")
    good = True
    for index, (name, ranks, settings) in enumerate(MESHES):
        if ranks > arguments.most_ranks:
            continue
        output = folder / f"run-{index}"
        overrides = [f"--set={setting}" for setting in [*settings, *sources, *arguments.set, f"output.folder={output}"]]
        profile = next(folder.glob("run-*/profile.json"), None)
        if profile:
            overrides.append(f"--set=log.profile={profile}")
        program.mpirun(ranks, [annulus, "train", recorded / "config.json", *overrides])
        good = compare(name, output, history, expected, arguments) and good
    print(f"tolerance: loss {arguments.loss_tolerance:.0e} at every step, weights {arguments.weight_tolerance:.0e} in norm, per tensor")
    return good


def options(parser):
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", help="a setting of every run")
    parser.add_argument("--recorded", type=pathlib.Path, metavar="FOLDER", help="of record_training.py")
    parser.add_argument("--most-ranks", type=int, default=8, help="leave meshes of more ranks out")
    parser.add_argument("--loss-tolerance", type=float, default=LOSS_TOLERANCE)
    parser.add_argument("--weight-tolerance", type=float, default=WEIGHT_TOLERANCE)


if __name__ == "__main__":
    program.main(__doc__, run, options)
