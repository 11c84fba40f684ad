"""What does a selection tell of its screen? How far the small model and the scorer agree, by a sample of all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tunesift.evaluation.stats import bootstrap, spearman
from tunesift.records import Decision, Score
from tunesift.running.run import Run
from tunesift.scoring.screening import Screened


def tell_screen(
    run: Run, screened: Screened, scores: Mapping[str, Score], sample: Sequence[int], decisions: Sequence[Decision]
) -> dict[str, int]:
    """Tell, in a table, how many records the screen settled, and of the sample how both models rank it and what the
    scorer decided otherwise; a word to the user where it did. `scores` are the scorer's own."""
    pairs = _both(screened, scores, sample)
    columns = [one for one, _ in pairs], [other for _, other in pairs]
    within = bootstrap(*columns, spearman, run.random("agreement"))
    otherwise = screened.settled_otherwise(sample, decisions)
    count = len(screened.values)
    run.table("screening", [{
        "records": count, "scored again": len(scores), "near a cut": int(screened.near.sum()), "sample": len(sample),
        "rank correlation": spearman(*columns),
        "from": within and within.low, "to": within and within.high,
        **{f"of the sample {name} by the screen": of for name, (of, _) in otherwise.items()},
        **{f"{name} by the screen, not by the scorer": wrong for name, (_, wrong) in otherwise.items()},
    }])  # fmt: skip
    far, wrong = (sum(of[n] for of in otherwise.values()) for n in (0, 1))
    told = f"of {far:,} sampled records that the screen settles, the scorer decides otherwise; raise screen.margin"
    return {told: wrong} if wrong else {}


def _both(screened: Screened, scores: Mapping[str, Score], sample: Sequence[int]) -> list[tuple[float, float]]:
    """The small model's score and the scorer's, of a sample's records that have both."""
    found = []
    for place in sample:
        one, other = float(screened.values[place]), scores.get(_id(screened, place))
        if one == one and other is not None and other.value is not None:
            found.append((one, other.value))
    return found


def _id(screened: Screened, place: int) -> str:
    return next(iter(screened.pool.data[place : place + 1].ids()))
