"""Do two models fit together for dual-model difficulty? Their gaps in a row and a picture, and a word to the user."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import median

from tunesift.records import Decision, Score
from tunesift.running.charts import Band, Chart
from tunesift.running.run import Run

MANY = 0.5
"""Share above which what speaks against an outcome is told: such as gaps below 0, since Star-Agents supposes that the
stronger model has the smaller IFD, which fails where it finds the response alone easier, too."""
UNSUITED = (
    "gaps are below 0: the large model's IFD is the larger one of most responses, so that the gap does not tell what "
    "is hard and learnable; take another large model"
)
DIFFICULTY = Chart(
    "points", "ifd_large", "ifd_small", "action", x_name="IFD by the large model", y_name="IFD by the small model",
    noun="records", names=("dropped", "kept"),
    caption="A point is a record. Above the diagonal the large model gains more from the instruction than the small "
    "one; where most lie below it, this pair of models is not suited.",
)  # fmt: skip


def tell_gaps(run: Run, scores: Mapping[str, Score], decisions: Sequence[Decision]) -> dict[str, int]:
    """Tell of the scores of `dual-ifd` how many gaps there are and how many are below 0, in a table, and draw them; a
    word to the user where too many are."""
    kept = {decision.record_id for decision in decisions if decision.action == "keep"}
    found: list[float] = []
    window: list[float] = []
    for id, score in scores.items():
        if score.value is None:
            continue
        found.append(score.value)
        if id in kept:
            window.append(score.value)
        ratios = {name: score.parts[name] for name in (DIFFICULTY.x, DIFFICULTY.y)}
        run.chart("difficulty", [{**ratios, "action": "kept" if id in kept else "dropped"}], DIFFICULTY)
    if found:
        run.chart("difficulty", (), replace(DIFFICULTY, bands=_bands(window, len(found))))
    below = sum(gap < 0 for gap in found)
    unsuited = below > MANY * len(found)
    run.table("gaps", [{
        "gaps": len(found), "below_0": below, "share_below_0": below / len(found) if found else None,
        "median": median(found) if found else None, "largest": max(found, default=None),
        "remark": f"{below:,} of {len(found):,} {UNSUITED}" if unsuited else None,
    }])  # fmt: skip
    return {f"of {len(found):,} {UNSUITED}": below} if unsuited else {}


def _bands(kept: Sequence[float], count: int) -> tuple[Band, ...]:
    """The line on which both models find a response as difficult, and the gaps that are kept, where some are not."""
    even = Band("gap 0", 0.0, slope=1.0)
    if not 0 < len(kept) < count:
        return (even,)
    return (even, Band(f"gaps kept, {min(kept):.3f} to {max(kept):.3f}", min(kept), max(kept), slope=1.0))
