"""Train the embedded scorer: a small Llama on the streams that `prepare.py` wrote.

    python train.py --build build --steps 5000

Constant learning rate, then a linear decay to zero over the last part, in which dialogues and tasks weigh more.
A checkpoint is written every `--save-every` steps; `--resume` goes on from it, and because the rate is constant before
the decay, a resumed run may be given another number of steps.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

MIX = {"text": 0.50, "tasks": 0.38, "dialogues": 0.12}
DECAY_MIX = {"text": 0.22, "tasks": 0.38, "dialogues": 0.40}
DECAY_FROM = 0.6
"""Share of the steps after which the learning rate falls."""
LENGTH = 1024
WARM_UP = 100
MUON_RATE, ADAM_RATE = 0.02, 0.004


def make_model(vocabulary: int, hidden: int, layers: int) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=hidden, intermediate_size=int(hidden * 8 / 3 / 64) * 64,
        num_hidden_layers=layers, num_attention_heads=hidden // 64, num_key_value_heads=hidden // 64,
        max_position_embeddings=LENGTH, tie_word_embeddings=True, bos_token_id=0, eos_token_id=1, pad_token_id=2,
        initializer_range=0.02, use_cache=False,
    )  # fmt: skip
    torch.manual_seed(0)
    return LlamaForCausalLM(config)


class Stream:
    """Rows of LENGTH + 1 tokens at random places of a flat file."""

    def __init__(self, path: Path, seed: int) -> None:
        self.tokens = np.memmap(path, dtype=np.uint16, mode="r")
        self.rng = np.random.default_rng(seed)

    def row(self) -> np.ndarray:
        start = self.rng.integers(0, len(self.tokens) - LENGTH - 1)
        return np.asarray(self.tokens[start : start + LENGTH], dtype=np.int64)


def batch_of(streams: dict[str, Stream], mix: dict[str, float], rows: int, rng: np.random.Generator) -> torch.Tensor:
    names = rng.choice(list(mix), size=rows, p=list(mix.values()))
    return torch.from_numpy(np.stack([streams[n].row() for n in names]))  # [B, T]


def held_out_loss(model: LlamaForCausalLM, build: Path, name: str, rows: int) -> float:
    """Nats per byte of the held-out stream, read from its start in windows."""
    tokens = np.fromfile(build / f"{name}.held.bin", dtype=np.uint16).astype(np.int64)
    per_token_bytes = json.loads((build / "facts.json").read_text())["held_bytes"][name] / len(tokens)
    windows = [tokens[i : i + LENGTH] for i in range(0, len(tokens) - LENGTH, LENGTH)][:rows]
    model.eval()
    with torch.inference_mode():
        losses = [model(input_ids=(ids := torch.from_numpy(w)[None]), labels=ids).loss.item() for w in windows]
    model.train()
    return float(np.mean(losses)) / per_token_bytes


def rate_at(step: int, steps: int) -> float:
    falling = (steps - step) / max(1, steps * (1 - DECAY_FROM))
    return min(1.0, (step + 1) / WARM_UP, falling)


def make_optimizers(model: LlamaForCausalLM) -> list[torch.optim.Optimizer]:
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    return [
        torch.optim.Muon(matrices, lr=MUON_RATE, weight_decay=0.01, momentum=0.95),
        torch.optim.AdamW(others, lr=ADAM_RATE, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def save(folder: Path, model: LlamaForCausalLM, optimizers: list[torch.optim.Optimizer], step: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    weights = {n: p.detach().clone() for n, p in model.named_parameters()}
    for number, optimizer in enumerate(optimizers):
        for index, state in optimizer.state_dict()["state"].items():
            weights |= {f"optimizer.{number}.{index}.{k}": v.clone() for k, v in state.items()}
    save_file(weights, folder / "state.part")
    (folder / "state.part").rename(folder / "state.safetensors")
    (folder / "step.json").write_text(json.dumps({"step": step}))
    model.config.save_pretrained(folder)


def load(folder: Path, model: LlamaForCausalLM, optimizers: list[torch.optim.Optimizer]) -> int:
    weights = load_file(folder / "state.safetensors")
    own = dict(model.named_parameters())
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(weights[name])
    for number, optimizer in enumerate(optimizers):
        state: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in weights.items():
            if key.startswith(f"optimizer.{number}."):
                _, _, index, name = key.split(".")
                state.setdefault(int(index), {})[name] = value
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return int(json.loads((folder / "step.json").read_text())["step"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", type=Path, default=Path("build"))
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--rows", type=int, default=8, help="sequences of 1,024 tokens per step")
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--save-every", type=int, default=250)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    vocabulary = json.loads((options.build / "facts.json").read_text())["vocabulary"]
    model = make_model(vocabulary, options.hidden, options.layers)
    optimizers = make_optimizers(model)
    folder = options.build / "model"
    first = load(folder, model, optimizers) if options.resume else 0
    streams = {n: Stream(options.build / f"{n}.train.bin", seed=hash_seed(n, first)) for n in MIX}
    rng = np.random.default_rng([7, first])
    print(json.dumps({"parameters": sum(p.numel() for p in model.parameters()), "first": first}), flush=True)
    started, smooth = time.monotonic(), math.nan
    for step in range(first, options.steps):
        rate = rate_at(step, options.steps)
        ids = batch_of(streams, MIX if rate == 1 or step < WARM_UP else DECAY_MIX, options.rows, rng)
        loss = 0.0
        for part in ids.split(2):
            out = model(input_ids=part, labels=part).loss * (len(part) / len(ids))
            out.backward()
            loss += out.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, top in zip(optimizers, (MUON_RATE, ADAM_RATE), strict=True):
            optimizer.param_groups[0]["lr"] = top * rate
            optimizer.step()
            optimizer.zero_grad()
        smooth = loss if math.isnan(smooth) else 0.98 * smooth + 0.02 * loss
        done = step + 1
        if done % 25 == 0 or done == options.steps:
            speed = (done - first) * options.rows * LENGTH / (time.monotonic() - started)
            line = {"step": done, "tokens": done * options.rows * LENGTH, "loss": round(smooth, 4),
                    "rate": round(rate, 4), "tokens_per_s": round(speed)}  # fmt: skip
            if done % options.save_every == 0 or done == options.steps:
                save(folder, model, optimizers, done)
                line |= {
                    f"held_{n}": round(held_out_loss(model, options.build, n, 24), 4) for n in ("text", "dialogues")
                }
            print(json.dumps(line), flush=True)


def hash_seed(name: str, first: int) -> int:
    return sum(name.encode()) * 1_000_003 + first


if __name__ == "__main__":
    main()
