"""Times on a device what a GPU suite holds Annulus against, and prints one JSON object: seconds of a large product, and of causal
attention forward and backward by each implementation that PyTorch has there.

    kernels.py '{"device": "cuda", "dtype": "bf16", "product": 8192, "sequences": 8, "length": 4096, "heads": 16, "head_dim": 128}'
"""

import json
import statistics
import sys
import time

import torch
from torch.nn import functional

import step

ROUNDS = 15
WARM_UP = 4


def seconds_of(work, device):
    """Median seconds of `work`, complete."""
    seconds = []
    for _ in range(ROUNDS + WARM_UP):
        step.finish(device)
        begin = time.perf_counter()
        work()
        step.finish(device)
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds[WARM_UP:])


def attention(case, dtype, name):
    shape = (case["sequences"], case["heads"], case["length"], case["head_dim"])
    q, k, v = (torch.randn(shape, device=case["device"], dtype=dtype, requires_grad=True) for _ in range(3))
    gradient = torch.randn(shape, device=case["device"], dtype=dtype)

    def forward():
        with step.attention_by(name):
            return functional.scaled_dot_product_attention(q, k, v, is_causal=True)

    out = forward()
    backward = seconds_of(lambda: torch.autograd.grad(out, (q, k, v), gradient, retain_graph=True), case["device"])
    with torch.no_grad():
        return {"forward": seconds_of(forward, case["device"]), "backward": backward}


def main():
    case = json.loads(sys.argv[1])
    dtype = {"bf16": torch.bfloat16, "f32": torch.float32}[case["dtype"]]
    torch.backends.cuda.matmul.allow_tf32 = False
    size = case["product"]
    a, b = (torch.randn(size, size, device=case["device"], dtype=dtype) for _ in range(2))
    found = {"version": torch.__version__, "product_flops_per_second": 2 * size**3 / seconds_of(lambda: a @ b, case["device"]),
             "attention": {}, "refused": {}}
    for name in step.ATTENTIONS if case["device"] == "cuda" else ("math",):
        try:
            found["attention"][name] = attention(case, dtype, name)
        except RuntimeError as error:
            found["refused"][name] = str(error).splitlines()[0]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
