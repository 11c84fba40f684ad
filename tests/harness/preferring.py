"""Preference pairs for tests: answers of varied lengths, of which the better one names what was asked for."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tunesift import Dataset, Message, Preference

_FILLER = "and so on it goes for a while until it ends here"


def pair(id: str, asked: str, chosen: str, rejected: str) -> Preference:
    """A pair of one turn."""
    return Preference(id, (Message("user", asked),), Message("assistant", chosen), Message("assistant", rejected))


def pairs(count: int, first: int = 0) -> Iterable[Preference]:
    """Pairs whose chosen answer says yes and whose rejected one says no, longer and shorter in turn."""
    for n in range(first, first + count):
        sizes = (3 + 5 * (n % 7), 3 + 5 * ((3 * n + 1) % 7))
        said = [f"{word} {_FILLER[:size]}" for word, size in zip(("yes", "no"), sizes, strict=True)]
        yield pair(f"p{n:03}", f"Is {n} good?", *said)


def preferences(count: int, first: int = 0) -> Dataset[Preference]:
    """The same as a data set."""
    return Dataset.of(pairs(count, first))


def rewarding(body: Path, into: Path, seed: int = 0, labels: int = 1) -> Path:
    """A classifier of a tiny model's body, with its tokenizer and a head drawn by the seed."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_pretrained(body, num_labels=labels)
    torch.nn.init.normal_(model.score.weight)
    model.config.pad_token_id = 0
    model.save_pretrained(into)
    AutoTokenizer.from_pretrained(body).save_pretrained(into)
    return into
