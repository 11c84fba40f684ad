"""The steps of the page `sima`, and what verdicts come to: answer, compare, read, settle."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal, get_args

from tunesift.formats import USES_TOOLS
from tunesift.image_fields import MEDIA_MARK
from tunesift.methods.sima_images import SEEN, seen_in
from tunesift.methods.sima_prompts import comparison
from tunesift.models import VisionChatModel
from tunesift.models.base import Completion, Sampling
from tunesift.models.http import HttpModel
from tunesift.models.vision import VisionModel
from tunesift.parsing import answer_of
from tunesift.records import Failure, Message, Preference, Record
from tunesift.settings import Settings

Source = Literal["sampled", "greedy"]
Parser = Literal["ours", "official"]
Order = Literal["sampled-first", "greedy-first"]
ORDERS: Mapping[Order, tuple[Source, Source]] = {
    "sampled-first": ("sampled", "greedy"), "greedy-first": ("greedy", "sampled"),
}  # fmt: skip
"""Which answers are response 1 and response 2."""
_VERDICT = re.compile(r"\[\[(?:[^\[\]\d]*[^\w\[\].-])?([12])\s*\]\]")


def seen_from(model: VisionChatModel, folder: Path) -> VisionChatModel:
    """The model, to be given images of this folder unless it has one of its own."""
    if isinstance(model, VisionModel | HttpModel) and model.images in (None, Path()):
        return replace(model, images=folder)
    return model


def left_out(record: Record) -> str:
    """Why a row is not asked about; empty where it is."""
    if record.extra.get("tools") or USES_TOOLS in record.extra:
        return "uses tools"
    if not any(message.images for message in record.prompt):
        return "has no image"
    if [message.role for message in record.messages] != ["user", "assistant"]:
        return "is more than a question and an answer"
    if sum(len(message.images) for message in record.messages) > 1:
        return "has several images"
    if not plain(record.response):
        return "has no reference answer"
    return "" if question_of(record) else "asks nothing"


def question_of(record: Record) -> str:
    """What is asked about the image."""
    return plain(record.prompt[-1].text)


def plain(text: str) -> str:
    """A text without marks of images, which brings none."""
    return text.replace(MEDIA_MARK, "").strip()


def prompt_of(record: Record) -> tuple[Message, ...]:
    """The image, followed by the question, and nothing else."""
    return (Message("user", question_of(record), record.prompt[-1].images),)


def answer_in(said: Completion) -> str:
    """An answer's text, which brings no image."""
    return plain(said.text)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two answers to one question, in one order."""

    id: str
    question: str
    reference: str
    responses: tuple[str, str]
    images: tuple[str, ...]
    seen: tuple[str, ...]
    """Digests of the images' bytes."""


def comparison_id(id: str, order: Order) -> str:
    """What a comparison is known by."""
    return f"{id}~{order}"


def compared(record: Record, answers: Mapping[Source, str], order: Order) -> Comparison:
    """The comparison of a record's answers in an order."""
    first, second = (answers[source] for source in ORDERS[order])
    images = record.prompt[-1].images
    return Comparison(comparison_id(record.id, order), question_of(record), record.response, (first, second), images,
                      seen_in(record))  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Answer(Settings):
    """Have a model answer questions about images."""

    kind: Literal["answer"] = "answer"
    model: VisionChatModel
    sampling: Sampling

    returns: ClassVar[type[Completion]] = Completion

    def __call__(self, chunk: Sequence[Record], /) -> Sequence[Completion | Failure]:
        """One answer per record."""
        return self.model.chat([prompt_of(record) for record in chunk], self.sampling)


@dataclass(frozen=True, kw_only=True)
class Compare(Settings):
    """Have a model say which of two answers agrees better with the reference."""

    kind: Literal["compare"] = "compare"
    model: VisionChatModel
    sampling: Sampling
    use_metrics: bool
    """Whether it is told the three visual criteria."""

    returns: ClassVar[type[Completion]] = Completion

    def __call__(self, chunk: Sequence[Comparison], /) -> Sequence[Completion | Failure]:
        """One reply per comparison."""
        asked = [
            (Message("user", comparison(c.question, c.reference, c.responses, self.use_metrics), c.images),)
            for c in chunk
        ]
        return self.model.chat(asked, self.sampling)


def verdict_of(said: str, parser: Parser) -> int | None:
    """Number of the response that a reply names, 1 or 2; None where it names none.

    ours: the last double brackets that hold a 1 or a 2, perhaps behind words. official: what the authors' split makes
    of it, which takes a 1 alone, without any brackets, for a verdict.
    """
    if parser == "official":
        inside = said.split("[[")[-1].split("]]")[0]
        return int(inside) if inside in ("1", "2") else None
    answer = answer_of(said)
    found = [] if isinstance(answer, Failure) else _VERDICT.findall(answer)
    return int(found[-1]) if found else None


@dataclass(frozen=True, slots=True)
class Settled:
    """What the verdicts on a record's two answers come to."""

    verdicts: Mapping[Order, int | None]

    @property
    def named(self) -> list[Source]:
        """The answers that were named, order by order."""
        return [ORDERS[order][number - 1] for order, number in self.verdicts.items() if number is not None]

    @property
    def chosen(self) -> Source | None:
        """The better answer; None where an order has no verdict, or two name different answers."""
        return self.named[0] if self.is_read and len(set(self.named)) == 1 else None

    @property
    def is_read(self) -> bool:
        """Whether every order has a verdict."""
        return None not in self.verdicts.values()

    @property
    def reason(self) -> str:
        """What became of the record, in words."""
        if self.chosen is not None:
            return f"{self.chosen} answer chosen"
        return "inconsistent" if self.is_read else "unparsed"


Told = Literal["source_of_chosen", "order", "verdict_raw"]
"""What a pair says of how it was made."""


def names_told(records: Iterable[Record]) -> dict[Told, str]:
    """The fields that say it: by these names, and behind `sima_` where the rows have fields of their own called so."""
    own = {name for record in records for name in record.extra}
    names: dict[Told, str] = {}
    for told in get_args(Told):
        names[told] = told
        while names[told] in own:
            names[told] = f"sima_{names[told]}"
    return names


def pair_of(
    record: Record,
    answers: Mapping[Source, str],
    settled: Settled,
    said: Mapping[Order, str],
    names: Mapping[Told, str],
) -> Preference | None:
    """The preference that verdicts come to, with what was said under these names; None where they come to none."""
    if (chosen := settled.chosen) is None:
        return None
    rejected: Source = "greedy" if chosen == "sampled" else "sampled"
    told = {names["source_of_chosen"]: chosen, names["order"]: list(said), names["verdict_raw"]: list(said.values())}
    better, worse = (Message("assistant", answers[source]) for source in (chosen, rejected))
    own = {name: value for name, value in record.extra.items() if name not in ("margin", "rejected", SEEN)}
    return Preference(record.id, prompt_of(record), better, worse, extra={**own, **told})


def verdict_rows(found: Sequence[Settled]) -> list[dict[str, object]]:
    """How the verdicts fall, order by order: a model without a liking for a place names each answer equally often,
    wherever it stands."""
    counted = ((order, Counter(one.verdicts[order] for one in found if order in one.verdicts)) for order in ORDERS)
    return [
        {"order": order, "replies": counts.total(), "response 1": counts[1], "response 2": counts[2],
         "unparsed": counts[None]}
        for order, counts in counted if counts
    ]  # fmt: skip


def pair_figures(found: Sequence[Settled], pairs: Sequence[Preference]) -> dict[str, object]:
    """What is to be known of the pairs before they are trained on; a share of none is None."""
    both = [one for one in found if one.is_read and len(one.verdicts) == len(ORDERS)]
    consistent = sum(one.chosen is not None for one in both)
    greedy = sum(one.chosen == "greedy" for one in found)
    longer = sum(len(pair.chosen.text.split()) - len(pair.rejected.text.split()) for pair in pairs)
    return {
        "pairs": len(pairs),
        "consistent in both orders": consistent / len(both) if both else None,
        "greedy answer wins": greedy / len(pairs) if pairs else None,
        "words of chosen minus rejected, mean": longer / len(pairs) if pairs else None,
    }
