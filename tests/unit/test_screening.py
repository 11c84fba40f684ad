"""A screen: a small model settles what is far from the cut, the scorer the rest."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence

import pytest

from tunesift import Dataset, Largest, Message, Record, Select, Smallest
from tunesift.errors import RecipeError
from tunesift.records import Decision, Failure, Score
from tunesift.scoring.dual_ifd import DualIFD
from tunesift.scoring.screening import Ranking, Screen, Screened
from tunesift.scoring.selectors import Pool, Random

Values = Mapping[str, float | None]
KEEPS: tuple[Ranking, ...] = (Largest(fraction=0.2), Largest(fraction=0.2, below=0.8),
                              Largest(fraction=None, count=7, at_most=0.5), Smallest(fraction=0.3),
                              Smallest(fraction=0.3, below=0.1), Largest(fraction=1.0))  # fmt: skip
FOUR = Largest(fraction=None, count=4)


def rows(count: int) -> Dataset[Record]:
    return Dataset.of(Record(f"r{n:03}", (Message("user", f"{n}?"), Message("assistant", "So."))) for n in range(count))


def pool(data: Dataset[Record], values: Values, failed: Sequence[str] = ()) -> Pool:
    scores = {id: Score(values[id], note="" if values[id] is not None else "empty_response")
              for id in data.ids() if id not in failed}  # fmt: skip
    failures = {id: Failure("too-long", "many tokens") for id in data.ids() if id in failed}
    return Pool(data, scores, failures, "IFD", random.Random(0))


def kept(decisions: Sequence[Decision]) -> set[str]:
    return {d.record_id for d in decisions if d.action == "keep"}


def through(
    data: Dataset[Record], cheap: Values, exact: Values, keep: Ranking, margin: float, sample: Sequence[int] = ()
) -> tuple[set[str], set[str]]:
    """What is kept, and whom the scorer was asked about."""
    screened = Screened.of(pool(data, cheap), keep, margin)
    again = data.where(screened.asked(sample))
    decisions = screened.decide(pool(again, exact), keep)
    assert [d.record_id for d in decisions] == list(data.ids())
    return kept(decisions), set(again.ids())


@pytest.mark.parametrize("keep", KEEPS)
def test_where_everything_is_near_the_cut_the_scorer_decides_alone(keep: Ranking) -> None:
    data = rows(60)
    for seed in range(10):
        draw = random.Random(seed)
        cheap, exact = ({id: draw.random() for id in data.ids()} for _ in range(2))
        found, asked = through(data, cheap, exact, keep, 1.0, range(60))
        assert found == kept(keep(pool(data, exact)))
        assert len(asked) == 60


@pytest.mark.parametrize("keep", KEEPS)
def test_where_scores_are_off_by_less_than_the_margin_the_scorers_own_choice_is_kept(keep: Ranking) -> None:
    """Values lie 1/200 apart, and the screen moves each by less than half of the ten ranks of the margin."""
    data = rows(200)
    for seed in range(10):
        draw = random.Random(seed)
        places = draw.sample(range(200), 200)
        exact = {id: (place + 0.5) / 200 for id, place in zip(data.ids(), places, strict=True)}
        cheap = {id: value + draw.uniform(-4, 4) / 200 for id, value in exact.items()}
        found, asked = through(data, cheap, exact, keep, 0.05)
        assert found == kept(keep(pool(data, exact)))
        assert len(asked) <= Screen(margin=0.05, sample=1).asked(keep, 200) <= 41


def test_no_more_are_kept_than_asked_for_whatever_the_scorer_says() -> None:
    data = rows(100)
    for seed in range(20):
        draw = random.Random(seed)
        cheap, exact = ({id: draw.random() for id in data.ids()} for _ in range(2))
        keep = Largest(fraction=None, count=13)
        assert len(through(data, cheap, exact, keep, 0.03, draw.sample(range(100), 20))[0]) == 13


def test_what_the_small_model_cannot_score_the_scorer_is_asked_about() -> None:
    data = rows(40)
    cheap = {id: n / 40 for n, id in enumerate(data.ids())}
    exact: Values = {**cheap, "r000": 9.0, "r001": None}
    screened = Screened.of(pool(data, {**cheap, "r000": None}, failed=["r001"]), FOUR, 0.05)
    again = data.where(screened.asked(()))
    assert set(again.ids()) == {"r000", "r001", "r034", "r035", "r036", "r037"}
    found = {d.record_id: d for d in screened.decide(pool(again, exact), FOUR)}
    assert kept(list(found.values())) == {"r000", "r037", "r038", "r039"}
    assert found["r001"].reason == "no score: empty_response"
    assert found["r020"].reason == "screened out: IFD 0.5000 by the screen, far from the cut"
    assert found["r039"].reason == "screened in: IFD 0.9750 by the screen, far from the cut"
    failing = screened.decide(pool(again, exact, failed=["r037"]), FOUR)
    assert {d.record_id: d.action for d in failing}["r037"] == "quarantine"


def test_where_the_screen_leaves_nothing_within_the_bound_what_is_nearest_to_it_is_scored() -> None:
    data = rows(20)
    cheap = {id: 1.5 + n / 20 for n, id in enumerate(data.ids())}
    exact = {id: value - 0.6 for id, value in cheap.items()}
    for keep in (Largest(fraction=None, count=3, below=1.0), Smallest(fraction=None, count=3, below=1.0)):
        assert through(data, cheap, exact, keep, 0.1) == ({"r000", "r001"}, {"r000", "r001"})


def test_a_sample_says_how_often_the_scorer_would_have_it_otherwise() -> None:
    data = rows(100)
    cheap = {id: n / 100 for n, id in enumerate(data.ids())}
    exact = {**cheap, "r010": 2.0, "r098": -2.0}
    sample = [10, 20, 98, 97, 90]
    keep = Largest(fraction=None, count=10)
    screened = Screened.of(pool(data, cheap), keep, 0.02)
    decisions = screened.decide(pool(data.where(screened.asked(sample)), exact), keep)
    assert "r010" in kept(decisions)
    assert "r098" not in kept(decisions)
    assert screened.settled_otherwise(sample, decisions) == {"kept": (2, 1), "dropped": (2, 1)}


@pytest.mark.parametrize(("changed", "said"), [
    ({"margin": 0.0}, "screen.margin: 0 is not a share above 0 and up to 1; write 0.05."),
    ({"margin": 1.5}, "screen.margin: 1.5 is not a share above 0 and up to 1; write 0.05."),
    ({"margin": math.nan}, "screen.margin: nan is not a share above 0 and up to 1; write 0.05."),
    ({"sample": 0}, "screen.sample: 0 records say nothing of how far both agree; write 500."),
])  # fmt: skip
def test_a_screen_that_is_none_is_a_sentence(changed: dict[str, float], said: str) -> None:
    with pytest.raises(RecipeError) as raised:
        Screen(**changed)  # type: ignore[arg-type]
    assert str(raised.value) == said


def test_a_screen_where_nobody_knows_the_cut_is_a_sentence() -> None:
    said = r"screen: only keep\.kind=largest and smallest, by the losses of one model, say where their cut is"
    with pytest.raises(RecipeError, match=said):
        Select(screen=Screen(), keep=Random())
    with pytest.raises(RecipeError, match=said):
        Select(screen=Screen(), scorer=DualIFD())
    with pytest.raises(RecipeError, match=r"screen: keep\.rule=cherry takes its share of what is within the bounds"):
        Select(screen=Screen(), keep=Largest(rule="cherry", at_most=1.0))
