"""A GPT-2 of transformers with random weights, its files, and its training in PyTorch: what Annulus is compared with."""

import json
import math
import pathlib

import numpy
import safetensors.torch
import torch
import transformers

ACTIVATIONS = {"gelu_tanh": "gelu_new", "gelu_erf": "gelu"}  # ours: theirs
_BUFFERS = (".attn.bias", ".attn.masked_bias")
PREFIX = "transformer."


def random_model(sizes, seed):
    """GPT2LMHeadModel in fp32, every tensor of it random, so that none can be mistaken for another."""
    torch.manual_seed(seed)
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(
        n_layer=sizes["layers"], n_embd=sizes["hidden"], n_head=sizes["heads"], vocab_size=sizes["vocabulary"],
        n_positions=sizes["block_size"], n_inner=sizes["ffn"], activation_function=ACTIVATIONS[sizes["activation"]],
        layer_norm_epsilon=sizes["layer_norm_epsilon"], resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        bos_token_id=None, eos_token_id=None, use_cache=False))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            is_gain = parameter.dim() == 1 and name.endswith("weight")
            parameter.copy_((1.0 if is_gain else 0.0) + torch.randn_like(parameter) * (0.1 if parameter.dim() > 1 else 0.05))
    return model


def tensors_of(model):
    """Weights by name, without prefix, tied head and buffers."""
    return {name.removeprefix(PREFIX): value.detach().clone().contiguous() for name, value in model.state_dict().items()
            if name != "lm_head.weight" and not name.endswith(_BUFFERS)}


def save(model, folder, prefix):
    """model.safetensors and config.json."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True)
    tensors = {prefix + name: value for name, value in tensors_of(model).items()}
    safetensors.torch.save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(model.config.to_json_string(use_diff=False), encoding="utf-8")


def write_tokens(path, ids):
    """An llm.c token file of 16-bit ids (docs/token-file.md)."""
    header = numpy.zeros(256, dtype="<i4")
    header[:3] = 20240520, 1, len(ids)
    pathlib.Path(path).write_bytes(header.tobytes() + numpy.asarray(ids, dtype="<u2").tobytes())


def batches(ids, sequence_length, sequences):
    """(inputs, targets) [sequences, sequence_length] of step 0, 1, ...: windows in file order."""
    ids = torch.as_tensor(numpy.asarray(ids, dtype=numpy.int64))
    for first in range(0, len(ids) - sequences * sequence_length, sequences * sequence_length):
        span = ids[first:first + sequences * sequence_length + 1]
        yield span[:-1].view(sequences, -1), span[1:].view(sequences, -1)


def learning_rate(optimizer, steps, step):
    """Of `step`, counted from 0."""
    peak, least, warmup = optimizer["learning_rate"], optimizer["minimum_learning_rate"], optimizer["warmup_steps"]
    if step < warmup:
        return peak * (step + 1) / warmup
    span = optimizer["decay_steps"] if optimizer["schedule"] == "constant_then_decay" else steps - warmup
    done = max(0, step - (steps - span)) / span
    left = 0.5 * (1 + math.cos(math.pi * done)) if optimizer["schedule"] == "cosine" else 1 - done
    return least + (peak - least) * left


def loss_of(model, inputs, targets):
    logits = model(inputs).logits
    return torch.nn.functional.cross_entropy(logits.view(-1, logits.shape[-1]), targets.reshape(-1))


def train(model, data, optimizer, steps):
    """Trains in place; one (loss, gradient norm, learning rate) a step. Matrices decay, vectors do not."""
    groups = [{"params": [p for p in model.parameters() if p.dim() > 1], "weight_decay": optimizer["weight_decay"]},
              {"params": [p for p in model.parameters() if p.dim() == 1], "weight_decay": 0.0}]
    adamw = torch.optim.AdamW(groups, lr=0.0, betas=(optimizer["beta1"], optimizer["beta2"]), eps=optimizer["epsilon"])
    history = []
    for step, (inputs, targets) in zip(range(steps), data):
        rate = learning_rate(optimizer, steps, step)
        for group in adamw.param_groups:
            group["lr"] = rate
        adamw.zero_grad()
        loss = loss_of(model, inputs, targets)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), optimizer["clip_norm"])
        adamw.step()
        history.append((loss.item(), norm.item(), rate))
    return history


def write_json(path, value):
    pathlib.Path(path).write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
