"""IFD's relatives on the card ifd.md: item 9, the pre-experience sample of Cherry, and item 12, r-IFD.

Templates, percentiles and clusters are written out here; losses and layers come from the slow versions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest

torch = pytest.importorskip("torch", reason='needs the "local" extra')
import slow  # noqa: E402

from harness.tiny import MakeTiny  # noqa: E402
from tunesift import (  # noqa: E402
    Cherry,
    Dataset,
    Local,
    Message,
    PreExperience,
    Record,
    ReversedIFD,
    Run,
    Score,
    TransformersModel,
)
from tunesift.methods.cherry import EmbedPrompt, PromptLoss  # noqa: E402
from tunesift.prompts import REVERSED  # noqa: E402

LONG = 1024
KINDS = ("llama", "gpt2")
WITHOUT = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\nDO\n\n### Response:"
)
WITH = (
    "Below is an instruction that describes a task, paired with an input that provides further context. Write a response "
    "that appropriately completes the request.\n\n### Instruction:\nDO\n\n### Input:\nTHIS\n\n### Response:"
)


def record(id: str, instruction: str, response: str, given: str = "") -> Record:
    ask = f"{instruction}\n\n{given}" if given else instruction
    return Record(id, (Message("user", ask), Message("assistant", response)), {"input": given} if given else {})


ITEM_9 = {
    "plain": (record("plain", "Name the sea.", "The Baltic."), WITHOUT.replace("DO", "Name the sea.")),
    "input": (record("input", "Say it in {German}.", "So.", "The end"),
              WITH.replace("DO", "Say it in {German}.").replace("THIS", "The end")),
    "long": (record("long", "the end of it " * 60, "Yes."), WITHOUT.replace("DO", "the end of it " * 60)),
}  # fmt: skip


def ids_of(folder: Path, text: str) -> list[int]:
    """A whole text as the tokenizer begins it: with BOS for a Llama, with nothing for a GPT-2."""
    return [*([0] if "llama" in folder.name else []), *slow.encode(folder, text)]


def slow_loss(folder: Path, ids: Sequence[int]) -> float:
    """Mean over the tokens that have something before them, as a framework's loss of a text over itself is."""
    nats = [slow.one_loss(folder, tuple(ids[:n]), ids[n]) for n in range(1, len(ids))]
    return sum(nats) / len(nats)


@pytest.mark.parametrize("kind", KINDS)
def test_item_9a_a_prompt_s_place_is_the_mean_over_all_tokens_of_the_last_layer_bos_included(
    make_tiny: MakeTiny, kind: str
) -> None:
    folder = make_tiny(kind, length=LONG)
    found = EmbedPrompt(student=TransformersModel(name=str(folder)))([item for item, _ in ITEM_9.values()])
    for vector, (_, text) in zip(found, ITEM_9.values(), strict=True):
        assert vector == pytest.approx(slow.mean_hidden(folder, ids_of(folder, text)), abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_item_9a_a_prompt_s_own_perplexity_is_that_of_its_first_512_tokens(make_tiny: MakeTiny, kind: str) -> None:
    folder = make_tiny(kind, length=LONG)
    found = PromptLoss(student=TransformersModel(name=str(folder)))([item for item, _ in ITEM_9.values()])
    for score, (_, text) in zip(found, ITEM_9.values(), strict=True):
        assert isinstance(score, Score)
        assert score.value == pytest.approx(slow_loss(folder, ids_of(folder, text)[:512]), abs=1e-5)
    assert len(ids_of(folder, ITEM_9["long"][1])) > 512


def percentile(values: Sequence[float], share: float) -> float:
    """By linear interpolation between the two nearest ranks."""
    order, place = sorted(values), share * (len(values) - 1)
    low = math.floor(place)
    high = min(low + 1, len(order) - 1)
    return order[low] + (order[high] - order[low]) * (place - low)


def picked(members: Sequence[int], perplexity: Sequence[float], count: int) -> list[int]:
    """Item 9c, step by step."""
    if len(members) < count:
        return list(members)
    values = [perplexity[n] for n in members]
    low, high = percentile(values, 0.25), percentile(values, 0.75)
    middle = [n for n in members if low <= perplexity[n] <= high]
    if len(middle) < count:
        return middle
    step = math.floor(len(middle) / count)
    return [middle[n * step] for n in range(count)]


MANY = [
    record(f"r{n}", f"{verb} the {what} number {n % 4}.", "Yes.")
    for n, (verb, what) in enumerate(
        (verb, what) for verb in ("Add", "Write of", "Translate into German") for what in ("sea", "sum", "end", "rain " * 9)
        for _ in range(3)
    )
]  # fmt: skip


def drawn(folder: Path, home: Path, settings: PreExperience) -> dict[str, tuple[int, float]]:
    """Cluster and perplexity of every record of the sample, as a run writes them down."""
    data = Dataset.of(MANY)
    with Run(home, Local()) as run:
        result = Cherry(student=TransformersModel(name=str(folder)), pre_experience=settings)(data, run)
        run.finish(data, result.decisions)
    rows = pq.read_table(home / "tables" / "pre-experience.parquet").to_pylist()
    return {row["id"]: (row["cluster"], row["perplexity"]) for row in rows}


def test_item_9_the_sample_is_the_middle_of_every_cluster_in_the_order_of_the_data(
    make_tiny: MakeTiny, tmp_path: Path
) -> None:
    pytest.importorskip("sklearn", reason='needs the "cluster" extra')
    folder = make_tiny("llama", length=LONG)
    texts = [WITHOUT.replace("DO", r.messages[0].text) for r in MANY]
    places = [slow.mean_hidden(folder, ids_of(folder, text)) for text in texts]
    perplexity = [math.exp(slow_loss(folder, ids_of(folder, text))) for text in texts]
    every = drawn(folder, tmp_path / "every", PreExperience(clusters=3, per_cluster=99, tuner=None))
    assert list(every) == [r.id for r in MANY], "a cluster smaller than the count is taken whole"
    assert [p for _, p in every.values()] == pytest.approx(perplexity, rel=1e-4)

    clusters = {c: [n for n, r in enumerate(MANY) if every[r.id][0] == c] for c in range(3)}
    assert all(clusters.values())
    centres = {c: [sum(places[n][d] for n in m) / len(m) for d in range(len(places[0]))] for c, m in clusters.items()}
    for cluster, members in clusters.items():
        for n in members:  # what k-means has come to rest at: no record is nearer to another cluster's mean
            assert cluster == min(centres, key=lambda c: math.dist(places[n], centres[c])), MANY[n].id

    for count in (2, 4):
        expected = sorted(n for members in clusters.values() for n in picked(members, perplexity, count))
        some = drawn(folder, tmp_path / str(count), PreExperience(clusters=3, per_cluster=count, tuner=None))
        assert list(some) == [MANY[n].id for n in expected]
        assert len(some) <= 3 * count, "an upper bound"


ITEM_12 = [
    record("one", "Name the sea.", "It is the Baltic."),
    record("two", "Say so in {German}.", "So, {response} und\n\nnicht.", "in the end"),
    record("three", "x", "the"),
]


@pytest.mark.parametrize("kind", KINDS)
def test_item_12_reversed_ifd_is_the_perplexity_of_the_instruction_given_the_response_over_its_own(
    make_tiny: MakeTiny, kind: str
) -> None:
    folder = make_tiny(kind, length=LONG)
    template = "chat" if kind == "llama" else "bare"
    student = TransformersModel(name=str(folder))
    found = ReversedIFD(student=student, template=template)(ITEM_12)
    by_loss = ReversedIFD(student=student, template=template, ratio="loss")(ITEM_12)
    for item, score, other in zip(ITEM_12, found, by_loss, strict=True):
        asked = REVERSED.split("{response}")
        text = asked[0] + item.messages[1].text + asked[1]
        text = f"[user]{text}[assistant]" if kind == "llama" else f"{text}\n"
        begin, target = [0 if kind == "llama" else 1], slow.encode(folder, item.messages[0].text)
        given, alone = (
            sum(slow.one_loss(folder, (*before, *target[:n]), target[n]) for n in range(len(target))) / len(target)
            for before in ([*begin, *slow.encode(folder, text)], begin)
        )
        assert isinstance(score, Score)
        assert isinstance(other, Score)
        assert score.value == pytest.approx(math.exp(given - alone), rel=1e-4), item.id
        assert other.value == pytest.approx(given / alone, rel=1e-4), item.id
        assert (score.parts["tokens"], score.parts["direct_tokens"]) == (len(target), len(target))


def test_item_12_the_target_is_the_instruction_with_its_input_and_the_question_shows_the_response_alone() -> None:
    assert REVERSED.count("{response}") == 1
    assert "{instruction}" not in REVERSED
    seen = []

    class Watching(TransformersModel):
        def loss(self, spans: Sequence) -> list:  # type: ignore[override, type-arg]
            seen.extend(spans)
            return super().loss(spans)

    ReversedIFD(student=Watching(), template="bare")([ITEM_12[1]])
    asked, alone = seen
    assert asked.target == alone.target == "Say so in {German}.\n\nin the end"
    assert alone.context == ""
    assert "So, {response} und\n\nnicht." in asked.context
    assert "German" not in asked.context
