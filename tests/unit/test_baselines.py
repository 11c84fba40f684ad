"""Baselines: perplexity by hand, the shortest responses, and selections that do not depend on the order of the data."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesift import (
    Above,
    Dataset,
    Failure,
    Largest,
    Longest,
    Message,
    Perplexity,
    Pool,
    Quota,
    Record,
    Score,
    ScriptedModel,
    Shortest,
    Smallest,
    Span,
    TargetLoss,
)
from tunesift.scoring.selectors import Selector


def record(id: str, response: str = "Hello.", instruction: str = "Say it.", **extra: object) -> Record:
    return Record(id, (Message("user", instruction), Message("assistant", response)), extra)


class Told(ScriptedModel):
    """Answers every span with the same losses, and remembers what it was asked."""

    def loss(self, spans: Sequence[Span]) -> list[TargetLoss | Failure]:
        asked.extend(spans)
        return [answers[span.target] for span in spans]


asked: list[Span] = []
answers: dict[str, TargetLoss | Failure] = {
    "two": TargetLoss((math.log(2), math.log(8)), False), "cut": TargetLoss((), True), "none": TargetLoss((), False),
    "nan": TargetLoss((math.nan,), False), "long": Failure("too-long", "9 tokens"), "huge": TargetLoss((9999.0,), True),
}  # fmt: skip


def test_perplexity_is_the_exponential_of_the_mean_loss_of_one_forward_pass() -> None:
    asked.clear()
    texts = ["two", "  ", "cut", "none", "nan", "long", "huge"]
    scores = Perplexity(student=Told(), template="bare")([record(text, text) for text in texts])
    first = scores[0]
    assert isinstance(first, Score)
    assert first.value == pytest.approx(4)
    assert first.parts == {"loss": pytest.approx(math.log(4)), "tokens": 2.0, "truncated": 0.0}
    assert [s.note for s in scores[1:4] if isinstance(s, Score)] == [
        "empty_response",
        "prompt_too_long",
        "no_scored_tokens",
    ]
    assert isinstance(scores[4], Failure)
    assert scores[5] == Failure("too-long", "9 tokens")
    assert isinstance(scores[6], Score)
    assert math.isfinite(scores[6].value or math.inf)
    assert [span.context for span in asked] == ["Say it.\n"] * 6
    asked.clear()
    Perplexity(student=Told(), given="nothing")([record("a", "two")])
    assert asked == [Span("", "two")]
    assert Perplexity().forwards == 1


def pool_of(records: Sequence[Record], scores: Sequence[float] = ()) -> Pool:
    found = {r.id: Score(s) for r, s in zip(records, scores, strict=True)} if scores else {}
    return Pool(Dataset.of(records), found, {}, "IFD", random.Random(0))


def kept(selector: Selector, pool: Pool) -> list[str]:
    return [d.record_id for d in selector(pool) if d.action == "keep"]


def test_the_shortest_that_are_not_empty_stay() -> None:
    pool = pool_of([record("a", "four"), record("b", ""), record("c", "six6ix"), record("d", "two")])
    assert {d.record_id: d.reason for d in Shortest(fraction=0.5)(pool)} == {
        "a": "shortest 50%: characters 4, rank 2 of 3",
        "b": "no score: empty_response",
        "c": "not among the shortest 50%: characters 6, rank 3 of 3; the last one kept has 4",
        "d": "shortest 50%: characters 3, rank 1 of 3",
    }


def test_decisions_are_a_sequence_like_a_list() -> None:
    found = Largest(fraction=0.5)(pool_of([record(id) for id in "abcd"], [0.1, 0.4, 0.3, 0.2]))
    assert len(found) == 4
    assert [d.record_id for d in found] == list("abcd")
    assert [found[n].action for n in range(4)] == ["drop", "keep", "keep", "drop"]
    assert found[-1] == found[3] == found[2:][1]
    assert found[::-1] == list(found)[::-1]
    with pytest.raises(IndexError):
        found[4]


BY_SCORE = [
    Largest(fraction=0.4), Largest(fraction=0.4, at_most=3.0, rule="cherry"), Smallest(fraction=0.4), Above(threshold=1.0),
    Quota(group="task", fraction=0.4), Longest(fraction=0.4), Shortest(fraction=0.4),
]  # fmt: skip


@pytest.mark.parametrize("selector", BY_SCORE, ids=lambda s: type(s).__name__)
@given(values=st.lists(st.integers(1, 500), min_size=1, max_size=25, unique=True), shuffle=st.randoms())
def test_of_different_scores_the_same_records_stay_in_any_order(
    selector: Selector, values: list[int], shuffle: random.Random
) -> None:
    records = [record(f"r{n}", "x" * value, task=value % 3) for n, value in enumerate(values)]
    pairs = list(zip(records, [v / 100 for v in values], strict=True))
    first = kept(selector, pool_of([r for r, _ in pairs], [v for _, v in pairs]))
    shuffle.shuffle(pairs)
    assert set(first) == set(kept(selector, pool_of([r for r, _ in pairs], [v for _, v in pairs])))


@pytest.mark.parametrize("selector", BY_SCORE[:3], ids=lambda s: type(s).__name__)
def test_all_equal_scores_keep_the_share_and_one_record_is_a_pool(selector: Largest) -> None:
    same = pool_of([record(f"r{n}") for n in range(10)], [0.5] * 10)
    assert len(kept(selector, same)) == 4
    whole = replace(selector, fraction=None, count=99)
    assert len(kept(whole, same)) == 10
    assert kept(whole, pool_of([record("one")], [0.5])) == ["one"]
