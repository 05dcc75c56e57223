#!/usr/bin/env python3
"""Compares training steps of build/annulus with PyTorch's on this machine, in one run, and prints tables in Markdown.

    benchmarks/compare_pytorch.py [--program build/annulus] [--steps 7] [--rounds 2] [--case N]... [--setting-check]

The same GPT-2 in fp32 on all cores: PyTorch as a user installs it, with every setting below that may help it, and Annulus with
nothing set. Processes of both take turns, `--rounds` times each; figures are medians over all their steps. PyTorch's newest
version is installed into build/.venv-pytorch (5.6 GB) for this benchmark alone. C is the FLOP-weighted rate of the model's own
products, each shape timed alone (build/products). GFLOP/s count what Annulus's ledger says was executed: products, and attention
where the causal mask lets pairs through, for both.

    --setting-check   instead times Annulus alone, under environment settings that users try against nothing set
"""

import argparse
import json
import os
import pathlib
import shlex
import statistics
import subprocess
import sys
import tempfile

import step_time

SOURCE = pathlib.Path(__file__).resolve().parents[1]
VENV = SOURCE / "build" / ".venv-pytorch"

EAGER = {"compile": False, "fused": False}
COMPILED = {"compile": True, "fused": True}
KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "-1"}  # freed tensors are not given back to the system
AS_INSTALLED = "PyTorch as installed"
PYTORCH = {
    AS_INSTALLED: (EAGER, {}),
    "PyTorch, compile + fused AdamW": (COMPILED, {}),
    "PyTorch, compile + fused AdamW, allocator set": (COMPILED, KEEP_MEMORY),
}
INTEL_SHIM = "PyTorch, compile + fused AdamW, allocator set, MKL told it is on Intel"
SETTINGS = {
    "OMP_WAIT_POLICY=active": {"OMP_WAIT_POLICY": "active"},
    "OMP_WAIT_POLICY=passive": {"OMP_WAIT_POLICY": "passive"},
    "OMP_PROC_BIND=close": {"OMP_PROC_BIND": "close"},
    "allocator set": KEEP_MEMORY,
}


def environment():
    """The Python of an environment with the newest PyTorch; makes it where it is missing."""
    python = VENV / "bin" / "python3"
    if not (VENV / ".complete").exists():
        print(f"compare_pytorch: installing PyTorch into {VENV}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(VENV)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", "torch", "numpy"], check=True)
        (VENV / ".complete").touch()
    return python


def intel_shim(folder):
    """A library that tells MKL it runs on its maker's processors: elsewhere it takes slower paths."""
    source, library = folder / "shim.c", folder / "shim.so"
    source.write_text("int mkl_serv_intel_cpu_true(void) { return 1; }\n")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    return {**KEEP_MEMORY, "LD_PRELOAD": str(library)}


def pytorch_step(python, case, options, settings, steps):
    model, sequences, length = case
    request = {**model, "sequences": sequences, "length": length, "steps": steps, "warm_up": step_time.WARM_UP, **options}
    command = [str(python), str(SOURCE / "benchmarks" / "pytorch" / "step.py"), json.dumps(request)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **settings})
    if done.returncode != 0:
        sys.exit(done.stdout + done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def annulus_step(program, folder, name, case, mesh, steps):
    """Seconds of each step, and the operations of one, of all ranks."""
    metrics = step_time.run(program, folder, name, case, step_time.MESHES[mesh], steps)
    ledger = json.loads((folder / name / "ledger.json").read_text())
    return [line["step_seconds"] for line in metrics], sum(group["flops"] for group in ledger["groups"])


def ceiling(products, case):
    """GFLOP/s of the model's own products, each shape alone."""
    model, sequences, length = case
    command = [str(products), "--layers", model["layers"], "--hidden", model["hidden"], "--vocabulary", model["vocabulary"],
               "--tokens", sequences * length, "--json"]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)["weighted_gflops"]


def compare(arguments, python, name, case, folder):
    competitors = dict(PYTORCH)
    if "Intel" not in step_time.processor():
        competitors[INTEL_SHIM] = (COMPILED, intel_shim(folder))
    seconds = {}
    ceilings = []
    for turn in range(arguments.rounds):
        ceilings.append(ceiling(arguments.products, case))
        for title, (options, settings) in competitors.items():
            seconds.setdefault(title, []).extend(pytorch_step(python, case, options, settings, arguments.steps)["step_seconds"])
        for mesh in ("1 rank", "TP=2"):
            took, flops = annulus_step(arguments.program, folder, f"{turn}-{mesh.replace(' ', '-')}", case, mesh, arguments.steps)
            seconds.setdefault(f"Annulus, {mesh}", []).extend(took)
            if mesh == "1 rank":
                executed = flops
    medians = {title: statistics.median(values) for title, values in seconds.items()}
    best = min(value for title, value in medians.items() if title in competitors)
    rate = statistics.median(ceilings)
    print(f"\n**{name}**: {executed / 1e9:.1f} GFLOP a step, C = {rate:.0f} GFLOP/s\n")
    print("| what | step ms | quartiles | GFLOP/s | of C | PyTorch's best / this | PyTorch as installed / this |")
    print("|---|---|---|---|---|---|---|")
    for title, value in medians.items():
        low, _, high = statistics.quantiles(seconds[title], n=4)
        print(f"| {title} | {1e3 * value:.0f} | {1e3 * low:.0f}-{1e3 * high:.0f} | {executed / value / 1e9:.0f} | "
              f"{executed / value / 1e9 / rate:.2f} | {best / value:.2f} | {medians[AS_INSTALLED] / value:.2f} |", flush=True)


def check_settings(arguments, name, case, folder):
    """Annulus under settings that users try: nothing set should be within noise of the best."""
    seconds = {}
    for turn in range(arguments.rounds):
        for number, (title, settings) in enumerate({"nothing set": {}, **SETTINGS}.items()):
            for mesh in ("1 rank", "TP=2"):
                before = dict(os.environ)
                os.environ.update(settings)
                took, _ = annulus_step(arguments.program, folder, f"setting-{turn}-{number}-{mesh.replace(' ', '-')}", case, mesh,
                                       arguments.steps)
                os.environ.clear()
                os.environ.update(before)
                seconds.setdefault((mesh, title), []).extend(took)
    medians = {key: statistics.median(values) for key, values in seconds.items()}
    print(f"\n**{name}**, Annulus under environment settings\n\n| mesh | setting | step ms | nothing set / this |\n|---|---|---|---|")
    for (mesh, title), value in medians.items():
        print(f"| {mesh} | {title} | {1e3 * value:.0f} | {medians[mesh, 'nothing set'] / value:.3f} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", type=pathlib.Path, default=SOURCE / "build" / "annulus")
    parser.add_argument("--products", type=pathlib.Path, default=SOURCE / "build" / "products")
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--case", type=int, action="append", help="number of a case, from 0; all where none is given")
    parser.add_argument("--setting-check", action="store_true")
    arguments = parser.parse_args()
    arguments.program, arguments.products = arguments.program.resolve(), arguments.products.resolve()
    version = ""
    if not arguments.setting_check:
        python = environment()
        script = "import torch; print('PyTorch', torch.__version__ + '. ', end='')"
        version = subprocess.run([str(python), "-c", script], capture_output=True, text=True, check=True).stdout
    print(f"{step_time.provenance()} {version}Command: `{shlex.join(['benchmarks/compare_pytorch.py', *sys.argv[1:]])}`. Medians.")
    with tempfile.TemporaryDirectory(prefix="annulus-compare-") as temporary:
        for number, (name, case) in enumerate(step_time.CASES.items()):
            if arguments.case and number not in arguments.case:
                continue
            folder = pathlib.Path(temporary) / str(number)
            folder.mkdir()
            if arguments.setting_check:
                check_settings(arguments, name, case, folder)
            else:
                compare(arguments, python, name, case, folder)


if __name__ == "__main__":
    main()
