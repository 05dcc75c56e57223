"""The stages of benchmarks/gpu_suite.sh, which sets the environment up; see there. A stage that is done has left its result in
runs/gpu-suite (runs/gpu-suite-cpu for a rehearsal); `report` makes tables of whatever is there."""

import argparse
import importlib.util
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import step_time

SOURCE = pathlib.Path(__file__).resolve().parents[1]
PYTHON = os.environ.get("GPU_SUITE_PYTHON", "python3")
RECORDED = SOURCE / ".gpu-suite" / "training"  # what PyTorch made of 20 steps elsewhere
ORACLE = "python3" if RECORDED.exists() else os.environ.get("ANNULUS_ORACLE_PYTHON", PYTHON)
STAGE_SECONDS = 470
LEAST_SECONDS = 200  # with less left, no stage is begun
CASE_SECONDS = 45  # of a mesh: where ranks share a GPU, NCCL may hang
TIMED_OUT = 124  # timeout's exit code
DATASHEET_FLOPS = 989.4e12  # bf16, dense, of an H100 SXM or H200

GPT2_1558M = {"layers": 48, "hidden": 1600, "heads": 25, "vocabulary": 50257}
GPT_1300M = {"layers": 24, "hidden": 2048, "heads": 16, "vocabulary": 50257}
TINY = {"layers": 2, "hidden": 64, "heads": 4, "vocabulary": 500}
# stage: title, model, sequences, tokens of each
SPEED = {
    "speed-124m": ("GPT-2 124M, 32 x 1024", step_time.GPT2, 32, 1024),
    "speed-1558m": ("GPT-2 1.5B, 8 x 1024", GPT2_1558M, 8, 1024),
    "speed-1300m": ("GPT 1.3B, 8 x 4096", GPT_1300M, 8, 4096),
    "speed-1300m-long": ("GPT 1.3B, 1 x 32768", GPT_1300M, 1, 32768),
}
# name, ranks, settings: the mesh on GPUs against one rank
VERIFY = [
    ("tp2", 2, ["parallel.tp=2"]),
    ("tp2 sp", 2, ["parallel.tp=2", "parallel.sequence_parallel=true"]),
    *((f"cp2 {layout}", 2, ["parallel.cp=2", f"parallel.layout={layout}"]) for layout in ("contiguous", "striped", "zigzag")),
    ("dp2", 2, ["parallel.dp=2"]),
    ("tp2 cp2 zigzag sp", 4, ["parallel.tp=2", "parallel.cp=2", "parallel.layout=zigzag", "parallel.sequence_parallel=true"]),
    ("dp2 cp2 striped", 4, ["parallel.dp=2", "parallel.cp=2", "parallel.layout=striped"]),
    ("dp2 tp2", 4, ["parallel.dp=2", "parallel.tp=2"]),
]


class Failed(Exception):
    """What a stage could not do, with the end of the output."""


class Suite:
    def __init__(self, cpu, build_folder):
        self.cpu = cpu
        self.results = SOURCE / "runs" / ("gpu-suite-cpu" if cpu else "gpu-suite")
        self.build = build_folder or SOURCE / ("build" if cpu else "build-gpu")
        self.program = self.build / "annulus"
        self.halves = "f32" if cpu else "bf16"  # what speed is measured in
        self.device = [] if cpu else ["device.kind=cuda"]
        self.deadline = 0.0

    def gpus(self):
        if shutil.which("nvidia-smi") is None:
            return []
        found = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
        return [line.split("(UUID")[0].split(":", 1)[1].strip() for line in found.stdout.splitlines() if line.startswith("GPU ")]

    def run(self, command, ranks=0, may_fail=False, most_seconds=STAGE_SECONDS, **environment):
        """(exit code, output) of a command within what the stage's time leaves; as ranks where asked to."""
        seconds = max(1, min(most_seconds, int(self.deadline - time.monotonic())))
        words = [str(word) for word in command]
        if ranks:
            words = ["mpirun", "-n", str(ranks), *words]
        # Told to end, mpirun ends its ranks; killed, it would leave them.
        done = subprocess.run(["timeout", "--kill-after=10", str(seconds), *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True, check=False, cwd=SOURCE, env={**os.environ, **environment})
        if done.returncode != 0 and not may_fail:
            raise Failed(f"exit code {done.returncode}{' (out of time)' * (done.returncode == TIMED_OUT)} of {' '.join(words)}\n"
                         f"{done.stdout[-4000:]}")
        return done.returncode, done.stdout

    def settings(self, *settings):
        return [word for setting in [*self.device, *settings] for word in ("--set", setting)]

    def config(self, folder, model, sequences, length, steps=0):
        """A configuration file of a run on random tokens."""
        tokens = folder / f"{length}.bin"
        if not tokens.exists():
            step_time.write_tokens(tokens, model["vocabulary"], 64 * length + 1)
        path = folder / "config.json"
        path.write_text(json.dumps({
            "model": {**model, "block_size": length}, "batch": {"sequence_length": length, "global_sequences": sequences},
            "data": {"file": str(tokens)}, "training": {"steps": steps}}))
        return path


def wheel_links(folder):
    """Libraries and headers that the machine has only as wheels (NCCL, cuDNN) under the names that compilers look for; and all
    libraries as programs look for them, since those of wheels find each other in one folder."""
    nvidia = importlib.util.find_spec("nvidia") if PYTHON == "python3" else None
    nvcc = shutil.which("nvcc")
    toolkit = pathlib.Path(nvcc).resolve().parents[1] if nvcc else SOURCE
    for root in list(nvidia.submodule_search_locations) if nvidia else []:
        links = {f"include/{header.name}": header for header in pathlib.Path(root).glob("*/include/*")}
        libraries = list(pathlib.Path(root).glob("*/lib/lib*.so.*"))
        links.update({f"lib/{library.name.split('.so.')[0]}.so": library for library in libraries})
        links = {name: file for name, file in links.items() if not (toolkit / name.replace("lib/", "lib64/", 1)).exists()}
        for name, file in {**links, **{f"lib/{library.name}": library for library in libraries}}.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            if not (folder / name).exists():
                (folder / name).symlink_to(file)


def build(suite):
    if suite.cpu:
        if not suite.program.exists():
            raise Failed("the rehearsal needs build/annulus; run launch/build.sh")
    else:
        links = suite.build / "wheels"
        wheel_links(links)
        prefixes = os.environ.get("CMAKE_PREFIX_PATH", "")
        frontend = SOURCE / ".gpu-suite" / "wheels" / "include"
        suite.run(["cmake", "-S", SOURCE, "-B", suite.build, "-G", "Ninja", "-D", "CMAKE_BUILD_TYPE=Release",
                   "-D", "ANNULUS_CUDA=ON", "-D", "ANNULUS_CUDA_ARCHITECTURES=90a-real", "-D", "ANNULUS_BENCHMARKS=OFF",
                   "-D", f"CMAKE_BUILD_RPATH={links}/lib",
                   *(["-D", f"ANNULUS_cudnn_frontend_INCLUDE={frontend}"] if frontend.exists() else [])],
                  CMAKE_PREFIX_PATH=f"{links}:{prefixes}")
        suite.run(["cmake", "--build", suite.build, "--target", "annulus", "test_cuda_device"])
    _, text = suite.run([suite.program, "info"])
    return {"info": text, "gpus": suite.gpus()}


def kernels(suite):
    """Every row of the op table against the CPU, attention among them, and the device's own tests."""
    tests = suite.build / "tests" / ("test_execute" if suite.cpu else "test_cuda_device")
    _, text = suite.run([tests])
    return {"passed": text.count("[       OK ]"), "skipped": text.count("[  SKIPPED ] ") // 2, "tail": text[-2000:]}


def share(suite, ranks):
    """Settings without which so many ranks have too few GPUs."""
    return [] if suite.cpu or ranks <= len(suite.gpus()) else ["device.share_gpu=true"]


def verify(suite, communication):
    """A step on meshes against one rank, in float64: loss, gradients, updated weights, counts."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="annulus-suite-") as temporary:
        config = suite.config(pathlib.Path(temporary), {**TINY, "vocabulary_padding": 8, "initial_std": 0.1}, 4, 32)
        how = [] if suite.cpu else [f"device.communication={communication}"]
        for name, ranks, settings in VERIFY:
            code, text = suite.run([suite.program, "verify", config, *suite.settings(*settings, *how, *share(suite, ranks))],
                                   ranks=ranks, may_fail=True, most_seconds=CASE_SECONDS)
            worst = next((line for line in text.splitlines() if line.startswith("largest error")), text[-500:])
            rows.append({"mesh": name, "ok": code == 0, "timed_out": code == TIMED_OUT, "worst": worst})
            print(f"  {name}: {'ok' if code == 0 else f'FAILED: {worst}'}", flush=True)
    return {"passed": sum(row["ok"] for row in rows), "rows": rows, "ok": all(row["ok"] for row in rows)}


def losses(suite, execution):
    """20 steps beside PyTorch's in f32, on one rank and, where each has a GPU (NCCL may hang where they share one), on meshes."""
    if suite.cpu and execution == "graph":
        return {"not_run": "on CPUs"}
    how = [] if suite.cpu else [f"device.execution={execution}"]
    extra = [f"--set={setting}" for setting in [*suite.device, *how]]
    code, text = suite.run([ORACLE, SOURCE / "tests" / "pytorch" / "compare_training.py", suite.program, "--loss-tolerance", "1e-4",
                            "--weight-tolerance", "1e-3", "--most-ranks", str(max(1, len(suite.gpus()))), *extra,
                            *(["--recorded", RECORDED] if RECORDED.exists() else [])], may_fail=True)
    return {"ok": code == 0, "text": text[-4000:]}


def sanitizer(suite):
    tool = shutil.which("compute-sanitizer")
    if suite.cpu or tool is None:
        return {"not_run": "on CPUs" if suite.cpu else "there is no compute-sanitizer"}
    code, text = suite.run([tool, "--error-exitcode", "9", suite.build / "tests" / "test_cuda_device"], may_fail=True)
    return {"ok": code == 0, "text": text[-2000:]}


def annulus_steps(suite, folder, case, micro, steps, execution):
    """Step seconds, model FLOPs by convention and the ledger of a run; None where the step does not fit."""
    _, model, sequences, length = case
    config = suite.config(folder, model, sequences, length, steps + step_time.WARM_UP)
    output = folder / f"annulus-{micro}-{execution}"
    how = [] if suite.cpu else [f"device.execution={execution}"]
    code, text = suite.run([suite.program, "train", config, *suite.settings(
        f"output.folder={output}", f"training.dtype={suite.halves}", f"batch.micro_sequences={micro}", *how)],
        ranks=1, may_fail=True)
    if code == 2 and "the step needs" in text:
        return None
    if code != 0:
        raise Failed(text[-4000:])
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()][step_time.WARM_UP:]
    peak = json.loads((output / "profile.json").read_text())["peak"]["flops_per_second"]
    shutil.rmtree(output / f"weights-{steps + step_time.WARM_UP}", ignore_errors=True)
    return {"seconds": [line["step_seconds"] for line in lines],
            "flops": {key: lines[-1][f"mfu_{key}"] * peak * lines[-1]["step_seconds"] for key in ("full", "causal", "6n")},
            "groups": json.loads((output / "ledger.json").read_text())["groups"], "loss": lines[-1]["loss"]}


def speed(suite, stage):
    """What of the stage could be measured; it fails where not even Annulus's step could."""
    case = SPEED[stage]
    if suite.cpu:
        case = (case[0] + " (rehearsal: tiny)", TINY, min(case[2], 2), 64)
    result = {"title": case[0]}
    try:
        measure_speed(suite, case, result)
    except Failed as error:
        if "annulus" not in result:
            raise
        result.update(ok=False, failed=str(error))
    return result


def measure_speed(suite, case, result):
    _, model, sequences, length = case
    steps = 3 if suite.cpu else 10
    device = "cpu" if suite.cpu else "cuda"
    _, text = suite.run([PYTHON, SOURCE / "benchmarks" / "pytorch" / "kernels.py", json.dumps({
        "device": device, "dtype": suite.halves, "product": 256 if suite.cpu else 8192, "sequences": min(sequences, 4),
        "length": length, "heads": model["heads"], "head_dim": model["hidden"] // model["heads"]})])
    result["alone"] = json.loads(text.splitlines()[-1])
    result["alone"]["sequences"] = min(sequences, 4)
    found = {name: sum(took.values()) for name, took in result["alone"]["attention"].items()}
    fastest = min(found, key=found.get)
    with tempfile.TemporaryDirectory(prefix="annulus-suite-") as temporary:
        folder = pathlib.Path(temporary)
        for micro in [m for m in (32, 16, 8, 4, 2, 1) if m <= sequences]:
            graph = annulus_steps(suite, folder, case, micro, steps, "graph")
            if graph is not None:
                result["annulus"] = {"micro_sequences": micro, **graph}
                result["ops"] = annulus_steps(suite, folder, case, micro, steps, "ops") if not suite.cpu else graph
                break
        else:
            result["refused"] = "the step does not fit this GPU's memory"
        request = {**model, "sequences": sequences, "length": length, "steps": steps, "warm_up": step_time.WARM_UP,
                   "compile": not suite.cpu, "fused": True, "device": device, "dtype": suite.halves, "attention": fastest}
        for micro in [m for m in (sequences, 4, 2, 1) if m <= sequences]:
            code, text = suite.run([PYTHON, SOURCE / "benchmarks" / "pytorch" / "step.py",
                                    json.dumps({**request, "micro_sequences": micro})], may_fail=True)
            if code == 0:
                result["pytorch"] = {"micro_sequences": micro, "attention": fastest, **json.loads(text.splitlines()[-1])}
                break
            if "out of memory" not in text:
                raise Failed(text[-4000:])


def isolated_seconds(result):
    """Of all compute kernels of a step, each timed by itself; none where that was not run."""
    return sum(group["measured_seconds"] for group in (result.get("ops") or {"groups": []})["groups"] if not group["axes"])


def speed_rows(results):
    for result in results:
        title, ceiling = result["title"], result["alone"]["product_flops_per_second"]
        theirs = statistics.median(result["pytorch"]["step_seconds"]) if "pytorch" in result else None
        how = f"PyTorch {result['alone']['version']}" + (", **not all was measured**" if "failed" in result else "")
        if theirs:
            how += f", attention by {result['pytorch']['attention']}, {result['pytorch']['micro_sequences']} at a time"
        if "annulus" not in result:
            yield f"| {title} | {result['refused']} | | | | | | | {how} |"
            continue
        ours = statistics.median(result["annulus"]["seconds"])
        flops = result["annulus"]["flops"]
        share_of = [f"{100 * flops[key] / ours / DATASHEET_FLOPS:.1f} / {100 * flops[key] / ours / ceiling:.1f}"
                    for key in ("full", "causal", "6n")]
        beside = f"{1e3 * theirs:.2f} | {theirs / ours:.3f}" if theirs else " | "
        yield (f"| {title}, {result['annulus']['micro_sequences']} at a time | {1e3 * ours:.2f} | {' | '.join(share_of)} | "
               f"{isolated_seconds(result) / ours:.3f} | {beside} | {how} |")


def attention_rows(results):
    for result in results:
        if result.get("ops") is None:
            continue
        for kind, part in (("attention_step", "forward"), ("attention_step_grad", "backward")):
            groups = [group for group in result["ops"]["groups"] if group["kind"] == kind]
            calls = sum(group["calls"] for group in groups)
            ours = sum(group["measured_seconds"] for group in groups) / calls
            sequences = result["annulus"]["micro_sequences"] / result["alone"]["sequences"]
            theirs = {name: took[part] * sequences for name, took in result["alone"]["attention"].items()}
            cells = ", ".join(f"{name} {1e3 * took:.3f}" for name, took in theirs.items())
            alone = theirs.get("cudnn", min(theirs.values()))
            yield f"| {result['title']} | {part} | {1e3 * ours:.3f} | {cells} | {ours / alone:.3f} |"


def report(suite):
    done = {path.stem: json.loads(path.read_text()) for path in suite.results.glob("*.json")}
    lines = [f"{step_time.provenance()} {', '.join(done.get('build', {}).get('gpus', [])) or 'no GPU: a rehearsal'}. "
             f"Command: `benchmarks/gpu_suite.sh{' --cpu' if suite.cpu else ''}`. Medians.\n", "| stage | result |", "|---|---|"]
    for stage, result in ((stage, done[stage]) for stage in STAGES if stage in done):
        if stage not in ("build", "report") and (stage not in SPEED or "failed" in result):
            good = result.get("ok", True)
            tests = f", {result['passed']} tests" if "passed" in result else ""
            how = f"not run: {result['not_run']}" if "not_run" in result else "passed" if good else "**FAILED**"
            lines.append(f"| {stage} | {how}{tests} |")
    speeds = [done[stage] for stage in SPEED if "annulus" in done.get(stage, {}) or "refused" in done.get(stage, {})]
    lines += ["", "MFU in %, of the datasheet's peak / of the product measured alone, with attention in full, causal, and 6 N.", "",
              "| step | ms | MFU full | MFU causal | MFU 6N | isolated kernels / step | PyTorch ms | PyTorch / this | beside |",
              "|---|---|---|---|---|---|---|---|---|", *speed_rows(speeds), "",
              "| attention of | part | ms a call | alone, ms | this / cuDNN (or the fastest there) |", "|---|---|---|---|---|",
              *attention_rows(speeds)]
    table = suite.results / "gpu.md"
    table.write_text("\n".join(lines) + "\n")
    print(table.read_text())
    print(f"wrote {table}: the tables for benchmarks/results/gpu.md")
    return {"file": str(table)}


# What a loan of a machine must not end without comes first; what may hang, or takes long, last.
STAGES = {
    "build": build, "kernels": kernels, "losses": lambda suite: losses(suite, "ops"), "losses-graph": lambda suite: losses(suite, "graph"),
    "speed-1300m": lambda suite: speed(suite, "speed-1300m"), "speed-124m": lambda suite: speed(suite, "speed-124m"),
    "verify-staged": lambda suite: verify(suite, "staged"), "verify-nccl": lambda suite: verify(suite, "nccl"),
    "speed-1558m": lambda suite: speed(suite, "speed-1558m"), "speed-1300m-long": lambda suite: speed(suite, "speed-1300m-long"),
    "sanitizer": sanitizer, "report": report,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--redo", action="store_true")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="end in this time: what is not done is left for the next call")
    parser.add_argument("--build", type=lambda text: pathlib.Path(text).resolve(), help="the build folder")
    parser.add_argument("stages", nargs="*", metavar="STAGE", help=", ".join(STAGES))
    arguments = parser.parse_args()
    for stage in arguments.stages:
        if stage not in STAGES:
            parser.error(f"{stage} is no stage; use {', '.join(STAGES)}")
    suite = Suite(arguments.cpu, arguments.build)
    suite.results.mkdir(parents=True, exist_ok=True)
    failed, end = [], time.monotonic() + arguments.seconds
    for stage in arguments.stages or STAGES:
        path = suite.results / f"{stage}.json"
        if path.exists() and json.loads(path.read_text()).get("ok", True) and not arguments.redo and stage != "report":
            print(f"{stage}: done before ({path})")
            continue
        begin = time.monotonic()
        suite.deadline = min(begin + STAGE_SECONDS, end)
        if suite.deadline - begin < LEAST_SECONDS and stage != "report":
            print(f"{stage}: left for the next call")
            continue
        print(f"{stage} ...", flush=True)
        try:
            result = STAGES[stage](suite)
        except Failed as error:
            print(f"{stage}: FAILED: {error}", file=sys.stderr)
            result = {"ok": False, "failed": str(error)}
        path.write_text(json.dumps(result, indent=1) + "\n")
        if not result.get("ok", True):
            failed.append(stage)
        print(f"{stage}: {'FAILED' if stage in failed else 'done'} in {time.monotonic() - begin:.0f} s", flush=True)
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
