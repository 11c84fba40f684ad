"""How fast are records read, cut into tokens and told? As the published script does it, and as ours; no model is asked.

    python benchmarks/tokenising.py [--data ALPACA] [--records 10400] [--repeat 5] [--clock wall] [--smoke]

A byte-level tokenizer of 49,152 tokens learns from the texts. All ways run in turn in each repetition, on one thread;
microseconds a record, medians, of reading, of tokens, of writing, and of all three. Seconds are of the wall, or with
`--clock processor`, on a machine that does other work, those of this process's processors.

    published   json.load of the whole file; five calls of the tokenizer a record, those of whole texts as tensors cut
                at 512, as Cherry's script does; a list of floats a record, torch.save of all at the end. Its texts are
                made before the clock starts
    tokenizer   read_dataset; the spans of IFD in Cherry's reading, and their tokens by a SpanEncoder for each 64
                records; one line of JSON a record into one file (a run's store commits them besides)
    ours        the same, with the quick way to tokens, which was looked for before: `looking_s` says for how long, and
                `pays_after_texts` after how many texts, three a record, that is won back

The second and the third must come to as many tokens; the script cuts a few long responses shorter. Writes
`benchmarks/results/tokenising.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ["TOKENIZERS_PARALLELISM"] = "false"

import orjson
import torch
from measuring import HERE, here, told
from scoring import LIMIT, VOCABULARY
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from tunesift import IFD, Record, TransformersModel, read_dataset
from tunesift.models.bytepairs import byte_pairs
from tunesift.models.likelihood import Quick, SpanEncoder

CHUNK = 64
"""Records of one call of a scorer."""
SCORER = IFD(student=TransformersModel(name="none"), profile="cherry")
Texts = list[tuple[str, str, str]]
"""Of each record what stands before its response, what before the response alone, and the response."""
Clock = Callable[[], float]
Way = Callable[[Path], tuple[int, dict[str, float]]]
"""Reads a file; how many tokens it came to, and the seconds of its parts."""


def taught(records: Sequence[Record], size: int) -> PreTrainedTokenizerFast:
    plain = Tokenizer(models.BPE())
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    plain.decoder = decoders.ByteLevel()
    learner = trainers.BpeTrainer(
        vocab_size=size, special_tokens=["<s>", "</s>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    plain.train_from_iterator((f"{r.prompt[-1].text}\n{r.response}" for r in records), learner)
    return PreTrainedTokenizerFast(tokenizer_object=plain, bos_token="<s>", eos_token="</s>")


def texts_of(records: Sequence[Record]) -> Texts:
    pairs = [SCORER._pairs(record)[0] for record in records]
    return [(str(after.context), str(alone.context), after.target) for after, alone in pairs]


def published(encode: Callable[..., Any], texts: Texts, now: Clock) -> Way:
    def work(path: Path) -> tuple[int, dict[str, float]]:
        began, count, values = now(), 0, []
        with path.open(encoding="utf-8") as file:
            json.load(file)
        read = now()
        for before, anchor, response in texts:
            length = len(encode(before))
            counts = []
            for text, most in ((before + response, LIMIT), (anchor + response, LIMIT - length + 4)):
                ids = encode(text, return_tensors="pt", truncation=True, max_length=most)
                start = len(encode(text[: text.rfind(response)]))
                counts.append(ids.shape[1] - start)
                count += ids.shape[1]
            values.append([0.125 * n for n in range(max(0, counts[0]))])
        cut = now()
        torch.save(values, path.with_suffix(".pt"))
        return count, {"reading": read - began, "tokens": cut - read, "writing": now() - cut}

    return work


def ours(tokenizer: PreTrainedTokenizerFast, quick: Quick | None, now: Clock) -> Way:
    def work(path: Path) -> tuple[int, dict[str, float]]:
        began, count, rows = now(), 0, []
        records = list(read_dataset(path))
        read = now()
        for start in range(0, len(records), CHUNK):
            encode = SpanEncoder(tokenizer, 2048, quick)
            for record in records[start : start + CHUNK]:
                segments = [encode(span) for span in SCORER._pairs(record)[0]]
                count += sum(len(s.ids) for s in segments)
                rows.append((record.id, 0.125 * len(segments[0].ids)))
        cut = now()
        with path.with_suffix(".scores.jsonl").open("wb") as file:
            for id, loss in rows:
                parts = dict.fromkeys(("ifd_ppl", "ifd_loss", "conditioned", "direct"), loss)
                file.write(orjson.dumps({"id": id, "value": 0.5, "parts": parts}) + b"\n")
        return count, {"reading": read - began, "tokens": cut - read, "writing": now() - cut}

    return work


def measured(ways: dict[str, Way], path: Path, count: int, repeat: int) -> dict[str, Any]:
    """Microseconds a record of each way's parts and together, medians, and how many times as long it takes as ours."""
    took: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    for turn in range(repeat + 1):  # once to warm up
        found = {}
        for name, work in ways.items():
            found[name], parts = work(path)
            if turn:
                micros = {part: 1e6 * seconds / count for part, seconds in parts.items()}
                took[name].append(micros | {"all": sum(micros.values())})
        assert found["tokenizer"] == found["ours"], found
        assert 0.999 * found["ours"] < found["published"] <= found["ours"], found
    middle = {
        name: {part: statistics.median(turn[part] for turn in turns) for part in turns[0]}
        for name, turns in took.items()
    }
    times = {
        name: {
            part: [round(turn[part] / own[part], 2) for turn, own in zip(took[name], took["ours"], strict=True)]
            for part in ("tokens", "all")
        }
        for name in ways if name != "ours"
    }  # fmt: skip
    return {
        "tokens": found,
        "microseconds_a_record": {n: {p: round(v, 1) for p, v in parts.items()} for n, parts in middle.items()},
        "ours_is_times": {n: {p: statistics.median(turns) for p, turns in parts.items()} for n, parts in times.items()},
        "ours_is_times_by_turn": times, "load": os.getloadavg()[0],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=HERE.parent / "demo" / "demo.jsonl")
    parser.add_argument("--records", type=int, default=10_400)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--clock", choices=["wall", "processor"], default="wall")
    parser.add_argument("--smoke", action="store_true", help="a few records and tokens, once, into no file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    now = time.perf_counter if options.clock == "wall" else time.process_time
    most, size, repeat = (50, 1000, 1) if options.smoke else (options.records, VOCABULARY, options.repeat)
    data = [r for r in read_dataset(options.data) if r.response.strip()]
    tokenizer, some = taught(data, size), data[:: max(1, len(data) // most)][:most]
    rows = [{"id": r.id, "instruction": r.prompt[-1].text, "output": r.response} for r in some]
    began = now()
    quick = byte_pairs(tokenizer)
    looking = now() - began
    assert quick is not None, "tiktoken is needed"
    with tempfile.TemporaryDirectory() as home:
        path = Path(home) / "records.json"
        path.write_text(json.dumps(rows))
        texts = texts_of(list(read_dataset(path)))
        ways = {
            "published": published(tokenizer.encode, texts, now),
            "tokenizer": ours(tokenizer, None, now),
            "ours": ours(tokenizer, quick, now),
        }
        compared = measured(ways, path, len(rows), repeat)
    spent = compared["microseconds_a_record"]
    saved = (spent["tokenizer"]["tokens"] - spent["ours"]["tokens"]) / 3e6  # of a text, of which a record has three
    told(here() | {
        "records": len(rows), "data": options.data.name, "vocabulary": size, "clock": options.clock,
        "looking_s": round(looking, 2), "pays_after_texts": round(looking / saved), **compared,
        "versions": {name: version(name) for name in ("tunesift", "transformers", "tokenizers", "tiktoken")},
    }, "tokenising", options.smoke)  # fmt: skip


if __name__ == "__main__":
    main()
