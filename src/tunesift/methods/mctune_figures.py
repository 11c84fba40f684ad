"""How far does what was asked for agree with what was measured? Rates of prompts, and errors and ranks of features."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from statistics import fmean

from tunesift.evaluation.stats import bootstrap, spearman
from tunesift.methods.mctune_controls import as_written, number_text
from tunesift.methods.mctune_features import BY_KEY, Kind
from tunesift.running.charts import Band, Chart

LENGTH = frozenset({"t_word", "rt_average"})
"""Features that are the length itself."""
ALL = "all"

_SHARE = 0.1
"""Of a target, within which counts and minutes may lie beside it."""
_ALWAYS: Mapping[Kind, float] = {"count": 1.0, "ratio": 0.05, "fkre": 5.0, "minutes": 0.01}
"""How far a measurement may lie beside any target; that of minutes is our choice, since they have two decimals."""

ASKED = Chart(
    "points", "asked", "measured", "feature", "asked for, in deviations of the data", "measured, in the same",
    caption="A point is a control of an answer, in standard deviations of its feature in the data that were tuned on. "
    "On the diagonal, the answer has what was asked for.",
    noun="controls", bands=(Band("as asked", 0.0, slope=1.0),), names=tuple(BY_KEY),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Control:
    """One number that was asked of one answer."""

    key: str
    asked: float
    found: float | None
    """What the answer measures, as it would be written; None where there is no answer, or it has no such measure."""
    words: float | None
    """Of the answer; None where there is none."""
    sd: float | None
    """Standard deviation of the feature in the data that were tuned on."""

    @property
    def is_exact(self) -> bool:
        """Whether both are written alike."""
        return self.found is not None and number_text(self.found) == number_text(self.asked)

    @property
    def is_near(self) -> bool:
        """Whether it is within a tenth of a count or of minutes, or one word, 0.01 minutes, 0.05 of a ratio, 5 of the
        readability."""
        if self.found is None:
            return False
        kind = BY_KEY[self.key].kind
        most = max(_ALWAYS[kind], _SHARE * abs(self.asked) if kind in ("count", "minutes") else 0.0)
        return abs(self.found - self.asked) <= most + 1e-9


@dataclass(frozen=True, slots=True)
class Prompt:
    """All that was asked of one answer."""

    controls: tuple[Control, ...]
    sigma: float | None
    """How far its targets lie from what its row measured, in deviations; None where that is not known."""
    row: str
    """The row it was made of, which others may have been made of, too."""

    @property
    def near(self) -> float:
        """Fraction of its controls that are near."""
        return fmean(control.is_near for control in self.controls)


def controls_of(
    asked: Mapping[str, float], found: Mapping[str, float] | None, sd: Mapping[str, float]
) -> tuple[Control, ...]:
    """The controls of one answer; `found` is None where there is none, or it has no word."""
    some = {key: as_written(value) for key, value in (found or {}).items()}
    words = some.get("t_word")
    return tuple(Control(key, asked[key], some.get(key), words, sd.get(key)) for key in BY_KEY if key in asked)


def rates(prompts: Sequence[Prompt]) -> Iterator[dict[str, object]]:
    """How often controls are exact and near, and prompts are all exact (strict), exact somewhere (loose) and all near;
    of all, by number of controls, by sigma, and of prompts that do not ask for a length. A missing answer has nothing
    of what was asked for."""
    groups: dict[str, list[Prompt]] = {ALL: [*prompts]}
    for size in sorted({len(p.controls) for p in prompts}):
        groups[f"{size} control{'s' * (size > 1)}"] = [p for p in prompts if len(p.controls) == size]
    for sigma in sigmas(prompts):
        groups[f"sigma {sigma:g}"] = [p for p in prompts if p.sigma == sigma]
    groups["neither t_word nor rt_average"] = [p for p in prompts if LENGTH.isdisjoint(c.key for c in p.controls)]
    for name, group in groups.items():
        if not group:
            continue
        single = [control for prompt in group for control in prompt.controls]
        shares = {
            "exact": [c.is_exact for c in single], "within_tolerance": [c.is_near for c in single],
            "strict": [all(c.is_exact for c in p.controls) for p in group],
            "loose": [any(c.is_exact for c in p.controls) for p in group],
            "all_within_tolerance": [all(c.is_near for c in p.controls) for p in group],
        }  # fmt: skip
        missing = sum(all(c.found is None for c in p.controls) for p in group)
        yield {"of": name, "prompts": len(group), "controls": len(single), "without_answer": missing,
               **{column: round(fmean(flags), 4) for column, flags in shares.items()}}  # fmt: skip


def by_feature(prompts: Sequence[Prompt], stream: Callable[..., Random]) -> Iterator[dict[str, object]]:
    """Of every feature, of all prompts and by their number of controls: how often exact and near, how large the error,
    and how far the ranks of what was asked for and measured agree, with the interval of 95 in 100 bootstrap samples of
    rows, each with all of its prompts.

    `length_only` is the same agreement with the answer's number of words in place of what was measured: a feature that
    is not above it may have come by the length alone. What is missing is in no error and no rank; what cannot be told
    is None. The last rows are means over features.
    """
    sizes: list[int | str] = [ALL, *sorted({len(p.controls) for p in prompts})]
    for size in sizes:
        group = [p for p in prompts if size in (ALL, len(p.controls))]
        found = []
        for key in BY_KEY:
            single = [(p.row, c) for p in group for c in p.controls if c.key == key]
            if single:
                found.append({"feature": key, "controls": str(size), **_row(single, stream("bootstrap", key, size))})
        yield from found
        yield _mean_row(size, found)


def points(prompts: Sequence[Prompt]) -> Iterator[dict[str, object]]:
    """What was asked for and measured, in deviations of the feature; only where both are known."""
    for control in (control for prompt in prompts for control in prompt.controls):
        if control.found is not None and control.sd:
            yield {"feature": control.key, "asked": control.asked / control.sd, "measured": control.found / control.sd}


def sigmas(prompts: Sequence[Prompt]) -> list[float]:
    """How far targets lie from their rows; empty where all do so alike."""
    several = sorted({p.sigma for p in prompts if p.sigma is not None})
    return several if len(several) > 1 else []


def _row(given: Sequence[tuple[str, Control]], stream: Random) -> dict[str, object]:
    single = [control for _, control in given]
    there = [(row, c.asked, c.found) for row, c in given if c.found is not None]
    gaps = [found - asked for _, asked, found in there]
    scaled = [abs(c.found - c.asked) / c.sd for c in single if c.found is not None and c.sd]
    rows, asked, found = [r for r, _, _ in there], [a for _, a, _ in there], [f for _, _, f in there]
    rank, sure = spearman(asked, found), bootstrap(asked, found, spearman, stream, rows)
    timed = [(c.asked, c.words) for c in single if c.words is not None]
    length = spearman([a for a, _ in timed], [w for _, w in timed])
    return {
        "n": len(single), "missing": len(single) - len(there),
        "exact": _mean([c.is_exact for c in single]), "within_tolerance": _mean([c.is_near for c in single]),
        "mae": _mean(list(map(abs, gaps))), "mse": _mean([gap * gap for gap in gaps]), "nmae": _mean(scaled),
        "spearman": _told(rank), "low": _told(sure.low if sure else None), "high": _told(sure.high if sure else None),
        "length_only": _told(length),
    }  # fmt: skip


def _mean_row(size: int | str, found: Sequence[Mapping[str, object]]) -> dict[str, object]:
    """Means over features of what is of one scale; errors in words and in readability have no mean."""
    row: dict[str, object] = dict.fromkeys(found[0]) if found else {}
    for column in ("exact", "within_tolerance", "nmae", "spearman", "length_only"):
        row[column] = _mean([value for one in found if isinstance(value := one[column], float)])
    counts = {column: sum(int(str(one[column])) for one in found) for column in ("n", "missing")}
    return {**row, **counts, "feature": "mean over features", "controls": str(size)}


def _mean(values: Sequence[float]) -> float | None:
    return round(fmean(values), 4) if values else None


def _told(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
