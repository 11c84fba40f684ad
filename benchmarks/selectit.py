"""Ratings per second: the published way, one span at a time, and ours; with the shares of what makes the difference.

    python benchmarks/selectit.py [--model FOLDER] [--data FILE] [--records 200 1000] [--repeat 3] [--threads 1]
                                  [--smoke]

Without a folder the model is made from a config with random weights (what a rating costs does not depend on what
the weights hold) and the embedded scorer's tokenizer. All variants run in turn in each repetition, so that their ratios
hold on a noisy machine, and every variant must give the published way's ratings to 1e-5. Seconds are the process's own:
those of its processors, not of the clock on the wall. Writes `benchmarks/results/selectit.json`.

    published        one pass per prompt and record, logits of the whole text, softmax over the vocabulary
    five spans       one pass per prompt, record and rating: five single-token spans, each by itself
    ours, whole      one row per prompt and record, batches, last position only
    ours, padded     the same, and what rows begin with in common, a rating prompt, is computed once: what a model gets
                     that reads no packs
    ours             in packs
    ours, record first   the other layout, whose scores are not comparable
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from tunesift import Record, TransformersModel, read_dataset
from tunesift.methods.selectit import Layout, Rate, Ratings, SelectIT
from tunesift.models.folders import local_folder
from tunesift.models.transformers import _Weights, _weights

HERE = Path(__file__).resolve().parent
CHUNK = 64
"""Records that go to the model together, as in a run."""


def made(folder: Path) -> Path:
    """A random Llama of 3 million parameters beside its embeddings, with the embedded scorer's tokenizer."""
    scorer = local_folder("embedded")
    assert scorer is not None
    for file in scorer.iterdir():
        if file.name.startswith(("tokenizer", "special")):
            shutil.copy(file, folder / file.name)
    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=6144, hidden_size=256, intermediate_size=688, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=2048, bos_token_id=0, eos_token_id=1, initializer_range=0.1,
    )  # fmt: skip
    LlamaForCausalLM(shape).save_pretrained(folder)
    return folder


class Passes:
    """Rows and tokens that went through a model's body."""

    def __init__(self) -> None:
        self.rows = self.tokens = 0

    @contextmanager
    def counting(self, body: torch.nn.Module) -> Iterator[None]:
        hook = body.register_forward_pre_hook(self._count, with_kwargs=True)
        try:
            yield
        finally:
            hook.remove()

    def _count(self, module: torch.nn.Module, args: tuple[object, ...], options: dict[str, torch.Tensor]) -> None:
        self.rows += options["input_ids"].shape[0]
        self.tokens += options["input_ids"].numel()


def texts(step: Rate, records: Sequence[Record]) -> list[str]:
    return [str(span.context) for record in records for span in step._spans(record, ["1"])]


def published(model: torch.nn.Module, tokenizer: Callable[..., dict[str, list[int]]], given: list[str]) -> list[float]:
    """As the authors' script: one text at a time, all logits, one softmax over the vocabulary."""
    digits = [tokenizer("\n" + d, add_special_tokens=False)["input_ids"][-1] for d in "12345"]
    found = []
    with torch.inference_mode():
        for text in given:
            logits = model(input_ids=torch.tensor([tokenizer(text)["input_ids"]])).logits
            found += torch.softmax(logits[0, -1].float(), dim=0)[digits].tolist()
    return found


def five_spans(model: TransformersModel, step: Rate, records: Sequence[Record]) -> list[float]:
    """Five spans of one token each, asked for one at a time."""
    spans = [span for record in records for span in step._spans(record, list("12345"))]
    return [math.exp(-loss.nats[0]) for span in spans for loss in model.loss([span]) if hasattr(loss, "nats")]


def ours(step: Rate, records: Sequence[Record]) -> list[float]:
    chunks = (records[start : start + CHUNK] for start in range(0, len(records), CHUNK))
    found = [ratings for chunk in chunks for ratings in step(chunk) if isinstance(ratings, Ratings)]
    return [p for ratings in found for prompt in ratings.chances for p in prompt]


@contextmanager
def without(weights: _Weights, **what: object) -> Iterator[None]:
    """As if the model could not do something: packed=None reads no packs, resumes=False shares no beginnings."""
    known = {name: getattr(weights, name) for name in what}
    weights.__dict__.update(what)
    try:
        yield
    finally:
        weights.__dict__.update(known)


def measure(folder: Path, data: Path, count: int, repeat: int, slow: bool) -> dict[str, object]:
    """Processor seconds of every variant on so many records, their passes, and how far their ratings are apart."""
    records = [r for r in read_dataset(data, limit=2 * count + 20) if r.response.strip()][:count]
    model = TransformersModel(name=str(folder), device="cpu")
    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    steps: dict[Layout, Rate] = {}
    for layout in ("prompt-first", "record-first"):
        method = SelectIT(layout=layout)
        steps[layout] = Rate(model=model, prompts=method.prompts, ratings=5, cue=method.cue, layout=layout)
    step, other = steps["prompt-first"], steps["record-first"]
    given = texts(step, records)

    def padded() -> list[float]:
        with without(_weights(model), packed=None):
            return ours(step, records)

    def whole() -> list[float]:
        with without(_weights(model), packed=None, resumes=False):
            return ours(step, records)

    variants: dict[str, Callable[[], list[float]]] = {"published": lambda: published(loaded, tokenizer, given)}
    if slow:
        variants["five spans"] = lambda: five_spans(model, step, records)
    variants |= {"ours, whole": whole, "ours, padded": padded, "ours": lambda: ours(step, records),
                 "ours, record first": lambda: ours(other, records)}  # fmt: skip
    ours(step, records[:2])  # loads
    bodies = [loaded.model, _weights(model).body]
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    found: dict[str, list[float]] = {}
    passes: dict[str, dict[str, int]] = {}
    for _ in range(repeat):
        for name, work in variants.items():
            counted = Passes()
            _weights(model)._beginnings.clear()  # every variant reads the rating prompts for itself
            with counted.counting(bodies[0]), counted.counting(bodies[1]):
                began = time.process_time()
                found[name] = work()
                seconds[name].append(round(time.process_time() - began, 3))
            passes[name] = {"rows": counted.rows, "tokens": counted.tokens}
    apart = {
        name: max(abs(a - b) for a, b in zip(found[name], found["published"], strict=True))
        for name in variants if name != "ours, record first"
    }  # fmt: skip
    assert max(apart.values()) < 1e-5, apart
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    return {
        "records": len(records), "ratings": len(given), "k_times_records": 5 * len(records), "passes": passes,
        "times_published": {name: round(medians["published"] / m, 2) for name, m in medians.items()},
        "ratings_per_s": {name: round(len(given) / m, 1) for name, m in medians.items()},
        "largest_difference": apart, "processor_seconds": seconds,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a model's folder; made from a config without")
    parser.add_argument("--data", type=Path, default=HERE.parent / "demo" / "demo.jsonl")
    parser.add_argument("--records", type=int, nargs="+", default=[200, 1000])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--smoke", action="store_true", help="a few records, once, into no file")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    counts, repeat = ([8], 1) if options.smoke else (options.records, options.repeat)
    with tempfile.TemporaryDirectory() as home:
        folder = options.model or made(Path(home))
        # five passes for each rating take minutes; how they compare is seen on the smallest number of records
        runs = [measure(folder, options.data, n, repeat, slow=n == min(counts)) for n in counts]
    found = {
        "command": "python benchmarks/selectit.py", "data": options.data.name,
        "model": options.model.name if options.model else "random Llama, 4 layers of 256", "threads": options.threads,
        "runs": runs, "processors": os.cpu_count(), "machine": platform.machine(),
        "versions": {name: version(name) for name in ("tunesift", "torch", "transformers")},
    }  # fmt: skip
    print(json.dumps(found, indent=1))
    if not options.smoke:
        (HERE / "results").mkdir(exist_ok=True)
        (HERE / "results" / "selectit.json").write_text(json.dumps(found, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
