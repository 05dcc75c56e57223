"""Times training steps (forward, backward, AdamW) of a GPT-2 in PyTorch and prints one JSON object.

    step.py '{"layers": 12, "hidden": 768, ..., "compile": true, "fused": true}'

On the CPU in fp32, in the environment that compare_pytorch.py makes; with "device": "cuda" on a GPU, where "dtype": "bf16" runs
under autocast with fp32 weights, and "attention" names the implementation. What it times is what `annulus train` does in a step:
gradients set to none, loss, backward, clipping by the global norm, AdamW.
"""

import contextlib
import json
import sys
import time

import torch
from torch import nn
from torch.nn import functional

ATTENTIONS = ("cudnn", "flash", "efficient")  # of a GPU, as torch.nn.attention names them


class Block(nn.Module):
    def __init__(self, hidden, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.qkv, self.output = nn.Linear(hidden, 3 * hidden), nn.Linear(hidden, hidden)
        self.up, self.down = nn.Linear(hidden, 4 * hidden), nn.Linear(4 * hidden, hidden)

    def forward(self, x):
        batch, length, hidden = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(batch, length, 3, self.heads, hidden // self.heads).permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.output(attended.transpose(1, 2).reshape(batch, length, hidden))
        return x + self.down(functional.gelu(self.up(self.norm2(x)), approximate="tanh"))


class Decoder(nn.Module):
    def __init__(self, layers, hidden, heads, vocabulary, length):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, hidden), nn.Embedding(length, hidden)
        self.blocks = nn.ModuleList(Block(hidden, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(hidden)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, ids, targets):
        x = self.tokens(ids) + self.positions.weight[: ids.shape[1]]
        for block in self.blocks:
            x = block(x)
        logits = self.norm(x) @ self.tokens.weight.t()
        return functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


def attention_by(name):
    """The context in which attention is done by that implementation alone; by PyTorch's choice where none is named."""
    if not name:
        return contextlib.nullcontext()
    from torch.nn import attention  # not in the oldest versions that the CPU is timed with
    backend = {"cudnn": "CUDNN_ATTENTION", "flash": "FLASH_ATTENTION", "efficient": "EFFICIENT_ATTENTION", "math": "MATH"}[name]
    return attention.sdpa_kernel(getattr(attention.SDPBackend, backend))


def finish(device):
    if device == "cuda":
        torch.cuda.synchronize()


def main():
    case = json.loads(sys.argv[1])
    device = case.get("device", "cpu")
    torch.manual_seed(1)
    torch.backends.cuda.matmul.allow_tf32 = False
    model = Decoder(case["layers"], case["hidden"], case["heads"], case["vocabulary"], case["length"]).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.1, fused=case["fused"])
    loss_of = torch.compile(model) if case["compile"] else model
    halves = torch.autocast(device, torch.bfloat16) if case.get("dtype") == "bf16" else contextlib.nullcontext()
    seconds, losses = [], []
    for _ in range(case["steps"] + case["warm_up"]):
        tokens = torch.randint(0, case["vocabulary"], (case["sequences"], case["length"] + 1)).to(device)
        finish(device)
        begin = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        with attention_by(case.get("attention")):
            for part in tokens.split(case.get("micro_sequences", case["sequences"])):
                with halves:
                    loss = loss_of(part[:, :-1], part[:, 1:]) * (len(part) / len(tokens))
                loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        finish(device)
        seconds.append(time.perf_counter() - begin)
    print(json.dumps({"version": torch.__version__, "threads": torch.get_num_threads(), "step_seconds": seconds[case["warm_up"]:],
                      "last_loss": losses[-1], "parameters": sum(p.numel() for p in model.parameters())}))


if __name__ == "__main__":
    main()
