"""How fast are losses scored? The loops of the published scripts, padded batches, CTranslate2 where it is, and ours.

    python benchmarks/scoring.py [--data ALPACA] [--shape m30] [--records 64] [--repeat 5] [--threads 2]
                                 [--device cpu] [--dtype float32] [--clock wall] [--smoke]

A model of random weights is made from a config (what a loss costs does not depend on what the weights hold), and a
byte-level tokenizer from the texts. All ways run in turn in each repetition, so that their ratios hold on a noisy
machine, and the rate of a float32 product of 1,024 by 1,024 is measured before and after each, by the library that
multiplies here. Seconds are of the wall, or with `--clock processor`, for one thread on a machine that does other work,
those of this process's processors.
The published loops are written anew from what the papers' scripts do, and lend no line from them:

    cherry         each record twice with labels, all logits, then each token's loss by itself in Python; five encodes
    superfilter    the same on a bare text, one line appended to a file for each record
    selectit       each record after each of five prompts, all logits, softmax over the vocabulary, one at a time
    padded         batches of 8 in the order of the file, all logits
    ctranslate2    `score_batch`, one text at a time and 1,024 tokens together

`share` is that of the product's rate: needed work (every shared beginning once a pack, the head at rows that are read)
over the seconds; `where` is what one thread's seconds go to. How far each record's ratio of losses is from ours is
told. Writes `benchmarks/results/scoring.json`.
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from measuring import HERE, here, told
from selectit import ours as rated
from selectit import published, texts
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, PreTrainedTokenizerFast

from tunesift import IFD, Record, Score, TransformersModel, read_dataset
from tunesift.methods.selectit import Rate, SelectIT
from tunesift.models.likelihood import SpanEncoder
from tunesift.models.packed import MOST_ON_CPU, Work
from tunesift.models.packing import laid, packs
from tunesift.models.products import product
from tunesift.models.transformers import _weights

VOCABULARY = 49_152
SHAPES: dict[str, tuple[int, int, int, int, int, int]] = {
    "m30": (512, 1408, 9, 8, 8, VOCABULARY), "m135": (576, 1536, 30, 9, 3, VOCABULARY),
    "gpt2": (768, 3072, 12, 12, 12, VOCABULARY), "7b": (4096, 11008, 32, 32, 32, VOCABULARY),
    "smoke": (64, 128, 2, 4, 2, 1024),
}  # fmt: skip
"""Hidden size, size between, layers, heads, heads of keys, vocabulary; m30 has 29 million parameters beside its
embeddings, m135 the shape of SmolLM2-135M, 7b that of Llama-2-7B with our vocabulary."""
PADDED = 8
LIMIT = 512
"""Most tokens of a text, as in Cherry's script."""


@dataclass
class Bench:
    """A model on disk and in memory, its tokenizer, and the records."""

    folder: Path
    records: list[Record]
    device: str
    dtype: str
    model: Any = None
    tokenizer: Any = None

    @property
    def ours(self) -> TransformersModel:
        return TransformersModel(name=str(self.folder), device=self.device, dtype=self.dtype)  # type: ignore[arg-type]


def made(folder: Path, shape: str, records: Sequence[Record], dtype: str) -> None:
    """A random model and a tokenizer that is trained on the texts."""
    hidden, between, layers, heads, groups, size = SHAPES[shape]
    plain = Tokenizer(models.BPE())
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    plain.decoder = decoders.ByteLevel()
    learner = trainers.BpeTrainer(
        vocab_size=size, special_tokens=["<s>", "</s>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    plain.train_from_iterator((f"{r.prompt[-1].text}\n{r.response}" for r in records), learner)
    PreTrainedTokenizerFast(tokenizer_object=plain, bos_token="<s>", eos_token="</s>").save_pretrained(folder)
    config: Any = LlamaConfig(
        vocab_size=size, hidden_size=hidden, intermediate_size=between, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=groups, max_position_embeddings=2048, bos_token_id=0,
        eos_token_id=1, initializer_range=0.05, tie_word_embeddings=True,
    )  # fmt: skip
    if shape == "gpt2":
        config = GPT2Config(vocab_size=size, bos_token_id=0, eos_token_id=1, initializer_range=0.05)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype)).save_pretrained(folder)


def pairs(bench: Bench, profile: str) -> list[tuple[str, str, str]]:
    """What stands before each record's response, what before the response alone, and the response."""
    scorer = IFD(student=bench.ours, profile=profile)  # type: ignore[arg-type]
    spans = [scorer._pairs(record)[0] for record in bench.records]
    return [(str(after.context), str(alone.context), after.target) for after, alone in spans]


def token_by_token(bench: Bench, text: str, target: str, limit: int) -> list[float]:
    """A pass with labels, then each token's loss from its own logits, one by one."""
    ids = bench.tokenizer.encode(text, return_tensors="pt", truncation=True, max_length=limit).to(bench.device)
    start = len(bench.tokenizer.encode(text[: text.rfind(target)]))
    labels = ids.clone()
    labels[0, :start] = -100
    found = bench.model(input_ids=ids, labels=labels)
    torch.exp(found.loss).to("cpu")
    nats = []
    for place in range(1, ids.shape[1]):
        chances = torch.nn.functional.log_softmax(found.logits[0, place - 1], dim=0)
        nats.append(torch.nn.functional.nll_loss(chances[None], ids[0, place][None]).item())
    return nats[max(0, start - 1) :]


def cherry(bench: Bench) -> list[float]:
    found = []
    for before, anchor, response in pairs(bench, "cherry"):
        length = len(bench.tokenizer.encode(before))
        after = token_by_token(bench, before + response, response, LIMIT)
        alone = token_by_token(bench, anchor + response, response, LIMIT - length + 4)
        found.append((sum(after) / len(after)) / (sum(alone) / len(alone)))
    return found


def superfilter(bench: Bench) -> list[float]:
    found = []
    with tempfile.TemporaryDirectory() as home:
        for before, _, response in pairs(bench, "superfilter"):
            after = token_by_token(bench, before + response, response, 1024)
            alone = token_by_token(bench, response, response, 1024)
            found.append(math.exp(sum(after) / len(after) - sum(alone) / len(alone)))
            with (Path(home) / "scores.jsonl").open("a") as file:
                file.write(f'{{"ifd_ppl": {found[-1]}}}\n')
    return found


def padded(bench: Bench) -> list[float]:
    """Batches in the order of the file, padded to their longest, all logits."""
    found: tuple[list[float], list[float]] = ([], [])  # after the instruction, and alone
    every = pairs(bench, "cherry")
    for start in range(0, len(every), PADDED):
        for kind in (0, 1):
            some = every[start : start + PADDED]
            ids = [bench.tokenizer.encode(p[kind] + p[2])[:LIMIT] for p in some]
            starts = [len(bench.tokenizer.encode(p[kind])) for p in some]
            longest = max(map(len, ids))
            batch = torch.tensor([row + [1] * (longest - len(row)) for row in ids], device=bench.device)
            mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in ids], device=bench.device)
            chances = bench.model(input_ids=batch, attention_mask=mask).logits.float().log_softmax(-1)
            for row, (own, first) in enumerate(zip(ids, starts, strict=True)):
                said = chances[row, torch.arange(first - 1, len(own) - 1), batch[row, first : len(own)]]
                found[kind].append(-said.mean().item())
    return [a / b for a, b in zip(*found, strict=True)]


def ifd(bench: Bench, profile: str) -> list[float]:
    scorer = IFD(student=bench.ours, profile=profile)  # type: ignore[arg-type]
    chunks = (bench.records[start : start + 64] for start in range(0, len(bench.records), 64))
    return [s.value for chunk in chunks for s in scorer(chunk) if isinstance(s, Score) and s.value is not None]


def translated(bench: Bench) -> Callable[[], list[float]]:
    """CTranslate2's own scores of the same texts, 1,024 tokens together."""
    import ctranslate2

    home = bench.folder / "translated"
    ctranslate2.converters.TransformersConverter(str(bench.folder)).convert(str(home), quantization="float32")
    engine = ctranslate2.Generator(str(home), intra_threads=torch.get_num_threads())

    def work() -> list[float]:
        both = [(before, p[2]) for p in pairs(bench, "cherry") for before in p[:2]]
        ids = [bench.tokenizer.encode(a + b)[:LIMIT] for a, b in both]
        starts = [len(bench.tokenizer.encode(a)) for a, _ in both]
        rows = [bench.tokenizer.convert_ids_to_tokens(row) for row in ids]
        scores = engine.score_batch(rows, max_batch_size=1024, batch_type="tokens")
        means = [-statistics.fmean(s.log_probs[n - 1 :]) for s, n in zip(scores, starts, strict=True)]
        return [a / b for a, b in zip(means[::2], means[1::2], strict=True)]

    return work


def rate_of(step: Rate, bench: Bench) -> Callable[[], list[float]]:
    def encode(text: str, **options: Any) -> Any:
        return bench.tokenizer(text, **options)

    return lambda: published(bench.model, encode, texts(step, bench.records))


def ways(bench: Bench, shape: str) -> Iterator[tuple[str, dict[str, Callable[[], list[float]]]]]:
    """What is compared with what: a name, the literal way first, and ours last."""
    if shape == "gpt2":
        yield "superfilter", {"superfilter": lambda: superfilter(bench), "ours": lambda: ifd(bench, "superfilter")}
        return
    cherries = {"cherry": lambda: cherry(bench), "padded by 8": lambda: padded(bench)}
    if find_spec("ctranslate2") and bench.device == "cpu":
        cherries["ctranslate2"] = translated(bench)
    yield "cherry", {**cherries, "ours": lambda: ifd(bench, "cherry")}
    method = SelectIT()
    step = Rate(model=bench.ours, prompts=method.prompts, ratings=5, cue=method.cue, layout="prompt-first")
    yield "selectit", {"selectit": rate_of(step, bench), "ours": lambda: rated(step, bench.records)}


def product_rate(device: str, now: Callable[[], float] = time.perf_counter, by_torch: bool = False) -> float:
    """Billions of operations a second of a product of 1,024 by 1,024, over 0.3 s."""
    left, right = (torch.randn(1024, 1024, device=device) for _ in range(2))
    out, count, ours = torch.empty_like(left), 0, None if by_torch or device != "cpu" else product()
    began = now()
    while now() - began < 0.3:
        if ours is not None:
            ours(left, right, None)
        else:
            torch.mm(left, right, out=out)
        if device != "cpu":
            torch.cuda.synchronize()
        count += 1
    return 2 * 1024**3 * count / (now() - began) / 1e9


def needed(bench: Bench, profile: str) -> float:
    """Operations that IFD's losses need, with each shared beginning once a pack, in billions."""
    scorer = IFD(student=bench.ours, profile=profile)  # type: ignore[arg-type]
    weights = _weights(bench.ours)
    encode = SpanEncoder(weights.tokenizer, weights.limit)
    aside = ("embed", "wte", "wpe", "lm_head")
    named = weights.model.named_parameters()
    body = sum(p.numel() for n, p in named if p.ndim == 2 and not any(word in n for word in aside))
    config, total = weights.model.config, 0.0
    for start in range(0, len(bench.records), 64):
        spans = [s for r in bench.records[start : start + 64] for pair in scorer._pairs(r) for s in pair]
        segments = [s for s in map(encode, spans) if len(s.ids) > max(s.start, 1)]
        work = Work.of(segments)
        for group in packs(work.forest, MOST_ON_CPU):
            pack = laid(work.forest, group)
            seen = sum((place + 1) for place in pack.places)
            total += 2 * body * len(pack.ids) + 4 * config.num_hidden_layers * config.hidden_size * seen
        rows = {(t, p) for t, s in zip(work.text, segments, strict=True) for p in range(max(s.start, 1), len(s.ids))}
        total += 2 * config.vocab_size * config.hidden_size * len(rows)
    return total / 1e9


KINDS = {
    "products": ("mkldnn::_linear_pointwise", "aten::mm", "aten::addmm"),
    "attention": ("aten::_scaled_dot_product_flash_attention_for_cpu",),
    "sums over the vocabulary": ("aten::exp_", "aten::amax", "aten::sub_", "aten::sum"),
}


def where(bench: Bench, profile: str) -> dict[str, float]:
    """Share of each kind of work in the seconds of one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as found, torch.inference_mode():
        ifd(bench, profile)
    torch.set_num_threads(threads)
    own = {event.key: event.self_cpu_time_total for event in found.key_averages()}
    shares = {kind: sum(own.get(name, 0.0) for name in names) / sum(own.values()) for kind, names in KINDS.items()}
    return {kind: round(n, 3) for kind, n in (shares | {"the rest": 1 - sum(shares.values())}).items()}


def swaps(one: list[float], other: list[float]) -> int:
    """Pairs that are in another order."""
    order = sorted(range(len(one)), key=one.__getitem__)
    return sum(other[a] > other[b] for a, b in itertools.pairwise(order))


def measure(
    bench: Bench, compared: dict[str, Callable[[], list[float]]], repeat: int, now: Callable[[], float]
) -> dict[str, Any]:
    """Every way in turn, so many times after one that only warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in compared}
    rates: dict[str, list[float]] = {name: [] for name in compared}
    found: dict[str, list[float]] = {}
    for turn in range(repeat + 1):
        for name, work in compared.items():
            before, began = product_rate(bench.device, now), now()
            with torch.inference_mode():
                found[name] = work()
            took = now() - began
            if turn:
                seconds[name].append(round(took, 4))
                rates[name].append(round((before + product_rate(bench.device, now)) / 2, 1))
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    others = [name for name in compared if name != "ours"]
    return {
        "ours_is_times": {name: round(medians[name] / medians["ours"], 2) for name in others},
        "ours_is_times_by_turn": {
            name: [round(a / b, 2) for a, b in zip(seconds[name], seconds["ours"], strict=True)] for name in others
        },
        "largest_difference": {
            name: max(abs(a - b) for a, b in zip(found[name], found["ours"], strict=True)) for name in others
        },
        "neighbours_in_another_order": {name: swaps(found[name], found["ours"]) for name in others},
        "seconds": seconds, "product_gflops": rates, "load": os.getloadavg()[0],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=HERE.parent / "demo" / "demo.jsonl")
    parser.add_argument("--shape", choices=list(SHAPES), default="m30")
    parser.add_argument("--records", type=int, default=64)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--clock", choices=["wall", "processor"], default="wall")
    parser.add_argument("--smoke", action="store_true", help="a few records of a tiny model, once, into no file")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    now = time.perf_counter if options.clock == "wall" else time.process_time
    shape, count, repeat = ("smoke", 6, 1) if options.smoke else (options.shape, options.records, options.repeat)
    data = [r for r in read_dataset(options.data) if r.response.strip()]
    step = max(1, len(data) // count)
    with tempfile.TemporaryDirectory() as home:
        bench = Bench(Path(home), data[::step][:count], options.device, options.dtype)
        made(bench.folder, shape, data, options.dtype)
        weights = _weights(bench.ours)
        bench.model, bench.tokenizer = weights.model, weights.tokenizer
        compared = {name: measure(bench, some, repeat, now) for name, some in ways(bench, shape)}
        profile = "superfilter" if shape == "gpt2" else "cherry"
        operations, of = needed(bench, profile), compared[profile]
        spent = where(bench, profile) if options.device == "cpu" else {}
        shares = [operations / s / r for s, r in zip(of["seconds"]["ours"], of["product_gflops"]["ours"], strict=True)]
    result = here() | {
        "shape": shape, "records": count, "data": options.data.name, "threads": options.threads,
        "clock": options.clock, "device": options.device, "dtype": options.dtype, "needed_gflop": round(operations, 1),
        "product_by": "torch" if product() is None or options.device != "cpu" else "oneDNN",
        "gflops_by_torch": round(statistics.median(product_rate(options.device, now, True) for _ in range(5)), 1),
        "share_of_product": round(statistics.median(shares), 3), "where": spent, "compared": compared,
        "versions": {name: version(name) for name in ("tunesift", "torch", "transformers", "tokenizers")},
    }  # fmt: skip
    told(result, "scoring" if shape == "m30" else f"scoring_{shape}", options.smoke)


if __name__ == "__main__":
    main()
