"""Do two models fit together for dual-model difficulty? Their gaps in one row of the report, and a word to the user."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from statistics import median

from tunesift.records import Score
from tunesift.running.run import Run

MOST_BELOW = 0.5
"""Share of gaps below 0 above which a pair of models is unsuited; Star-Agents supposes that the stronger model has the
smaller IFD, which fails where it finds the response alone easier, too."""
_UNSUITED = (
    "gaps are below 0: the large model's IFD is the larger one of most records, so that the gap does not tell what is "
    "hard and learnable; take another large model"
)


def gaps_of(scores: Mapping[str, Score]) -> Iterable[float]:
    """The gaps that there are."""
    return (score.value for score in scores.values() if score.value is not None)


def tell_gaps(run: Run, gaps: Iterable[float]) -> dict[str, int]:
    """Tell how many gaps there are and how many are below 0, in a table; a word to the user where too many are."""
    found = list(gaps)
    below = sum(gap < 0 for gap in found)
    unsuited = below > MOST_BELOW * len(found)
    run.table("gaps", [{
        "gaps": len(found), "below_0": below, "share_below_0": below / len(found) if found else None,
        "median": median(found) if found else None, "largest": max(found, default=None),
        "remark": f"{below:,} of {len(found):,} {_UNSUITED}" if unsuited else None,
    }])  # fmt: skip
    return {f"of {len(found):,} {_UNSUITED}": below} if unsuited else {}
