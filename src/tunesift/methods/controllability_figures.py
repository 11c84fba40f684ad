"""Is a statement under control? Percentages of a judge, what is only repeated, and the figures of many statements."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from tunesift.errors import RecipeError
from tunesift.methods.debatune_steps import Side
from tunesift.parsing import Scale, answer_of, two_ratings
from tunesift.records import Failure
from tunesift.settings import Settings

THRESHOLDS = (100, 90, 75)
"""Own-side percentages from which a statement is Good; 100 is the paper's, the others show how brittle it is."""
PERCENT = Scale(0, 100)

_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|\w+")
"""A run of letters and figures; of Chinese and Japanese, which have no spaces, a character."""

_SAYING_NOTHING = frozenset(
    """
    a about above absolutely accept accepted actually affirmative again against agree agreed agreement all almost
    already also although always am among an and another any anybody anyone anything anywhere are aren argue
    argument around as ask at away be because been before being believe believed beside besides better between both
    but by can cannot certain certainly clear clearly come completely correct could couldn d did didn do does doesn
    don doubt doubted down each either else entirely even ever every everybody everyone everything everywhere
    exactly explain fact far few follow following follows for from fully further give given go good great had hadn
    has hasn have haven he hence her here hers him his hold holds how however i if important in indeed into is isn
    it its itself just know known knows least less like ll look looks m made make makes many matter matters may me
    might more moreover most much must my myself negative neither never no nobody none nor not nothing now nowhere
    of off on once one only opinion or other others our out over own people perhaps place places plain plainly
    please point position possible possibly quite rather re really reason reasons right s same say says see seen
    shall she should shouldn show shows side simply since so some somebody someone something somewhere statement
    still strongly such support supports sure surely t take than that the their them then there thereby therefore
    these they thing things think this those though through thus time times to together too topic totally true truth
    under up upon us ve very view want was wasn way ways we well were weren what whatever when where whether which
    while who whoever whole whom whose why will with within without won world would wouldn wrong yes yet you your
    """.split()  # noqa: SIM905  a column of quoted words would be hard to read
)
"""English words that carry a sentence, or agree, and bring no reason; our list."""


@dataclass(frozen=True, kw_only=True)
class Parroting(Settings):
    """When a statement only repeats its argument."""

    most_repeated: float = 0.5
    """Fraction of a statement's different words that may be its argument's or its topic's; our choice."""
    least_own: int = 15
    """Different words that a statement has beside those, at least, without the English ones that say nothing of the
    matter (the, because, agree, everybody); our choice. An argument that is repeated, however often, within sentences
    of agreement has fewer; one whose words are replaced by others of their meaning may have more, and is not seen."""

    def __post_init__(self) -> None:
        if not 0 < self.most_repeated <= 1:
            raise RecipeError(f"parroting.most_repeated: {self.most_repeated:g} is not a fraction above 0; write 0.5.")
        if self.least_own < 0:
            raise RecipeError(f"parroting.least_own: {self.least_own} is no number of words; write 0 or more.")

    def __call__(self, statement: str, argument: str, topic: str) -> bool:
        """Whether it does."""
        said = set(words(statement))
        own = said - {*words(argument), *words(topic)} - _SAYING_NOTHING
        return len(own) < self.least_own or repeated(statement, argument, topic) > self.most_repeated


@dataclass(frozen=True, slots=True)
class Judged:
    """What is known about one statement."""

    side: Side
    shares: tuple[float, float] | None
    """Percentages that support and oppose the topic; None where the judge gave none."""
    parroted: bool
    words: int

    @property
    def own(self) -> float | None:
        """Percentage of its own side."""
        return None if self.shares is None else self.shares[self.side == "negative"]

    def is_good(self, threshold: float, guarded: bool = False) -> bool:
        """Whether it argues its own side so far; with the guard, a parroted statement never does."""
        return self.own is not None and self.own >= threshold and not (guarded and self.parroted)


def read_shares(text: str) -> tuple[float, float] | Failure:
    """The two percentages on the first line of a judge's reply: `100 0`, `100, 0`, `100% 0%`, `For: 100 Against: 0`."""
    said = answer_of(text)
    return said if isinstance(said, Failure) else two_ratings(said.strip().splitlines()[0], PERCENT)


def words(text: str) -> list[str]:
    """The words of a text, in lower case."""
    return _WORD.findall(text.casefold())


def repeated(statement: str, argument: str, topic: str) -> float:
    """Fraction of a statement's different words that are its argument's or its topic's; 1 for a statement of none."""
    said = set(words(statement))
    return len(said & {*words(argument), *words(topic)}) / len(said) if said else 1.0


def controlled(judged: Sequence[Judged]) -> list[dict[str, object]]:
    """Controversy controllability by threshold: of both sides, and of all; as the paper has it, and with the guard.

    A statement without percentages is not Good, and counts. No share of nothing: None.
    """
    sides: Mapping[str, Sequence[Judged]] = {
        "CC_P": [j for j in judged if j.side == "affirmative"],
        "CC_N": [j for j in judged if j.side == "negative"],
        "CC_all": judged,
    }
    return [
        {"figure": name, "threshold": threshold, "strict_fraction": _share([j.is_good(threshold) for j in of]),
         "guarded_fraction": _share([j.is_good(threshold, guarded=True) for j in of]), "n": len(of)}
        for threshold in THRESHOLDS for name, of in sides.items()
    ]  # fmt: skip


def mean_shares(judged: Sequence[Judged]) -> list[dict[str, object]]:
    """PP and PN: mean percentage that affirmative statements support and oppose; NP and NN of negative ones."""
    rows: list[dict[str, object]] = []
    for initial, side in (("P", "affirmative"), ("N", "negative")):
        shares = [j.shares for j in judged if j.side == side and j.shares is not None]
        for place, name in enumerate("PN"):
            values = [share[place] for share in shares]
            rows.append({"figure": initial + name, "mean": fmean(values) if values else None, "n": len(values)})
    return rows


def counted(judged: Sequence[Judged]) -> list[dict[str, object]]:
    """By side: statements, those without percentages, those that repeat their argument, and words of one on average."""
    rows: list[dict[str, object]] = []
    for side in ("affirmative", "negative", "all"):
        of = [j for j in judged if side in (j.side, "all")]
        missing = [j.shares is None for j in of]
        rows.append({
            "side": side, "n": len(of), "missing": sum(missing), "missing_fraction": _share(missing),
            "parroted": sum(j.parroted for j in of), "mean_words": fmean(j.words for j in of) if of else None,
        })  # fmt: skip
    return rows


def _share(flags: Sequence[bool]) -> float | None:
    return sum(flags) / len(flags) if flags else None
