"""Target tokens per second: one span at a time through the model's own loss, and ours by batch size.

    python benchmarks/losses.py [--model FOLDER] [--data FILE] [--records 256] [--repeat 5] [--smoke]

All variants run in turn in each repetition, so that their ratios hold on a noisy machine. Writes
`benchmarks/results/losses.json` with the medians, every single time, the machine and the versions.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tunesift import Span, TransformersModel, read_dataset
from tunesift.models.folders import local_folder
from tunesift.models.likelihood import Segment, SpanEncoder, batches

HERE = Path(__file__).resolve().parent


def naive(model: torch.nn.Module, segments: list[Segment]) -> None:
    """One span at a time, the framework's masked loss over whole logits."""
    with torch.inference_mode():
        for segment in segments:
            ids = torch.tensor([segment.ids])
            labels = ids.clone()
            labels[:, : segment.start] = -100
            model(input_ids=ids, labels=labels)


def padding(segments: list[Segment], tokens: int) -> float:
    """Share of a batch's tokens that are padding."""
    computed = sum(max(len(segments[n].ids) for n in batch) * len(batch) for batch in batches(segments, tokens))
    return 1 - sum(len(s.ids) for s in segments) / computed


def measure(variants: dict[str, Callable[[], object]], repeat: int) -> dict[str, list[float]]:
    """Seconds of every variant in every repetition, after one warm-up each."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(repeat + 1):
        for name, work in variants.items():
            began = time.perf_counter()
            work()
            if turn:
                seconds[name].append(round(time.perf_counter() - began, 4))
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--data", type=Path, default=HERE.parent / "demo" / "demo.jsonl")
    parser.add_argument("--records", type=int, default=256)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--smoke", action="store_true", help="a few records, once, into no file")
    options = parser.parse_args()
    count, repeat = (8, 1) if options.smoke else (options.records, options.repeat)
    data = read_dataset(options.data, limit=2 * count)
    spans = [Span(before, r.response) for r in list(data)[:count] if r.response for before in (r.prompt, "")]
    folder = str(local_folder(options.model) or options.model)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    encode = SpanEncoder(AutoTokenizer.from_pretrained(folder), 1024)
    segments = [encode(span) for span in spans]
    targets = sum(len(s.ids) - s.start for s in segments)
    budgets = {"ours, one span": 1, "ours, 1,024 tokens": 1024, "ours, 4,096 tokens": 4096}
    variants: dict[str, Callable[[], object]] = {"naive, one span": lambda: naive(model, segments)}
    for name, tokens in budgets.items():
        ours = TransformersModel(name=options.model, batch_tokens=tokens)
        variants[name] = lambda ours=ours: ours.loss(spans)  # type: ignore[misc]
    seconds = measure(variants, repeat)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    found = {
        "command": "python benchmarks/losses.py", "records": count, "spans": len(spans), "target_tokens": targets,
        "target_tokens_per_s": {name: round(targets / m) for name, m in medians.items()},
        "times_naive": {name: round(medians["naive, one span"] / m, 2) for name, m in medians.items()},
        "padding": {name: round(padding(segments, tokens), 3) for name, tokens in budgets.items()},
        "seconds": seconds, "processors": os.cpu_count(), "machine": platform.machine(),
        "versions": {name: version(name) for name in ("tunesift", "torch", "transformers")},
    }  # fmt: skip
    print(json.dumps(found, indent=1))
    if not options.smoke:
        (HERE / "results").mkdir(exist_ok=True)
        (HERE / "results" / "losses.json").write_text(json.dumps(found, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
