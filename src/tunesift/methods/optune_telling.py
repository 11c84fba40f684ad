"""What OPTune tells of its rounds: how many answers were drawn, how rewards and gaps went, and what it took."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tunesift.datasets import Dataset
from tunesift.errors import DataError
from tunesift.evaluation.stats import spearman
from tunesift.methods.optune_pool import Answer, Held
from tunesift.methods.optune_weights import UNEVEN, Spread, ratio_for, speed_up
from tunesift.records import Decision, Preference, Score
from tunesift.running.charts import Chart
from tunesift.running.result import Result
from tunesift.running.run import Run, StageReport
from tunesift.running.step import Checkpoint
from tunesift.tuning.process import Trained

CLAIMED = (1.27, 1.56)
"""Times faster than with all prompts answered again, by the paper's abstract."""
REWARDS = Chart(
    "lines", "round", "reward", "of", "round", "mean reward",
    "The mean reward of what was drawn in a round, of the better and of the worse answer held. Where the gap widens "
    "while answers grow longer, look at what the reward model likes.",
    names=("drawn", "better answers held", "worse answers held"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Round:
    """What a round came to."""

    number: int
    answers: Mapping[str, Sequence[Answer]]
    """What was drawn, by prompt."""
    pool: Mapping[str, Held]
    pairs: Dataset[Preference]
    """What was trained on."""
    weights: Sequence[float]
    trained: Trained
    drift: float | None
    """Nats by which the student of this round finds its answers likelier than the first one does, in the mean of what
    was drawn: an estimate of their Kullback-Leibler divergence. None where nothing was drawn."""
    read: int
    """Tokens of prompts and answers that were scored, as the student counts them."""
    left_out: Mapping[str, str]
    """Why a prompt's pair was not trained on, by id."""

    def notes(self) -> Iterator[tuple[str, int]]:
        """What is worth a word: a judge that does not rate, weights so uneven that few pairs decide."""
        if unread := sum(a.unread for a in self.drawn()):
            yield f"answers of round {self.number} have no reward, since the judge's reply holds no rating", unread
        why = Counter(reason.partition(":")[0] for reason in self.left_out.values())
        yield from ((f"pairs of round {self.number} are not trained on: {said}", why[said]) for said in sorted(why))
        mean = sum(self.weights) / len(self.weights)
        if many := sum(w > UNEVEN * mean for w in self.weights):
            yield (
                f"pairs of round {self.number} have a weight of over {UNEVEN:g} times the mean: few pairs decide",
                many,
            )

    def drawn(self) -> list[Answer]:
        """All answers of this round."""
        return [a for answers in self.answers.values() for a in answers]


def decided(id: str, why: str, rounds: Sequence[Round]) -> Decision:
    """What became of a prompt: why it was not answered, or in how many rounds it was trained on."""
    if why:
        return Decision(id, "drop", why)
    count = sum(one.pairs.place(id) is not None for one in rounds)
    if not count:
        left_out = next((one.left_out[id] for one in rounds if id in one.left_out), None)
        return Decision(id, "drop", left_out or "no pair: no two answers had other texts and rewards, min_gap apart")
    again = sum(id in one.answers for one in rounds) - 1
    return Decision(id, "keep", f"trained on: in {count} of {len(rounds)} rounds, answered again in {again}")


def nothing_to_learn(
    round: int, answers: Mapping[str, Sequence[Answer]], left_out: Mapping[str, str], made: Checkpoint | None
) -> DataError:
    """Why a round cannot be trained, and what there is of the rounds before."""
    drawn = [a for of in answers.values() for a in of]
    without, unread = sum(not math.isfinite(a.reward) for a in drawn), sum(a.unread for a in drawn)
    said = f"of {len(drawn):,} answers drawn {without:,} have no reward"
    said += f", {unread:,} of them since the judge's reply holds no rating" if unread else ""
    if left_out:
        said += f", and {len(left_out):,} pairs are left out ({next(iter(left_out.values()))})"
    kept = f" The student of round {round - 1} is in {made.path}." if made else ""
    return DataError(f"round {round}: no trainable pairs, two answers of a prompt whose texts and rewards differ, "
                     f"min_gap or more apart; {said}; look at the rewards, or raise answers.{kept}")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Course:
    """What a run came to."""

    measured: Mapping[str, Score]
    """Tokens of every prompt, by id, with a note why one is not answered."""
    rounds: Sequence[Round]
    """Those that were trained."""
    scale: Spread
    ratio: float


def outcome(run: Run, course: Course, made: Checkpoint | None = None, refused: DataError | None = None) -> Result:
    """What became of the prompts, with tables and charts of the rounds; the last student, or why there is none."""
    rounds = course.rounds
    if rounds:
        _tell(run, rounds, course.scale, course.ratio)
    if refused is not None:
        run.table("doubts", [{"doubt": str(refused)}])
    decisions = [decided(id, score.note, rounds) for id, score in course.measured.items()]
    notes = {said: count for one in rounds for said, count in one.notes()}
    also = {f"round-{one.number}": one.pairs for one in rounds}
    return Result(
        None, decisions, notes=notes, checkpoint=made, also=also, format="preference", refused=refused
    )  # fmt: skip


def _tell(run: Run, rounds: Sequence[Round], scale: Spread, ratio: float) -> None:
    run.table("rounds", [_row(one) for one in rounds])
    run.table("scale", [{"rewards of round 0": scale.count, "mean": scale.mean, "standard deviation": scale.sd}])
    run.table("ages", [row for one in rounds for row in _ages(one)])
    run.chart("rewards", [row for one in rounds for row in _rewards(one)], REWARDS)
    times = [_times(run.stages, one) for one in rounds]
    run.table("seconds", [took.row() for took in times])
    run.table("speed", speeds(times, ratio))


@dataclass(frozen=True, slots=True)
class Took:
    """Seconds of a round's stages; None for one that was begun or done in an earlier life of the run."""

    round: int
    answering: float | None
    scoring: float | None
    training: float | None

    @property
    def generating(self) -> float | None:
        """Answering and scoring."""
        return None if self.answering is None or self.scoring is None else self.answering + self.scoring

    def row(self) -> dict[str, object]:
        """As a table has it."""
        return {"round": self.round, "answering": self.answering, "scoring": self.scoring, "training": self.training}


def _times(stages: Sequence[StageReport], one: Round) -> Took:
    """A round that asks nobody answers and scores in no time."""
    answering, scoring = (_took(stages, f"{s}-{one.number}") if one.answers else 0.0 for s in ("answer", "reward"))
    return Took(one.number, answering, scoring, _took(stages, f"train-{one.number}"))


def _took(stages: Sequence[StageReport], stage: str) -> float | None:
    """Seconds of a stage of which all was done in this life; loading weights is among them."""
    found = next((s for s in stages if s.stage == stage), None)
    return round(found.seconds, 3) if found is not None and found.worked == found.items > 0 else None


def speeds(times: Sequence[Took], ratio: float) -> list[dict[str, object]]:
    """What answering a share of the prompts saves, by the seconds of round 0; empty where these were not all measured
    in one life."""
    first, rounds = times[0], len(times)
    if first.generating is None or first.training is None:
        return []
    g, u = first.generating, first.training
    rows: list[dict[str, object]] = [
        {"ratio": r, "said of": of, "one round": speed_up(g, u, r), "all rounds": speed_up(g, u, r, rounds)}
        for r, of in ((ratio, "this run"), *((n / 5, "others") for n in range(1, 6)))
    ]  # fmt: skip
    for faster in CLAIMED:
        if 0 < (needed := ratio_for(g, u, faster)) <= 1:
            rows.append({"ratio": needed, "said of": f"a round that is {faster} times faster", "one round": faster,
                         "all rounds": speed_up(g, u, needed, rounds)})  # fmt: skip
    known = [(took.generating, took.training) for took in times]
    if all(a is not None and b is not None for a, b in known):
        whole = sum((a or 0) + (b or 0) for a, b in known)
        rows.append({"ratio": ratio, "said of": "this run, as measured", "one round": None,
                     "all rounds": rounds * (g + u) / whole})  # fmt: skip
    return rows


def likelier(now: Mapping[str, Score], first: Mapping[str, Score]) -> float | None:
    """By how many nats answers are likelier to one student than to another, in the mean of what both have read."""
    both = [(now[id].value, first[id].value) for id in sorted(now.keys() & first.keys())]
    return _mean([a - b for a, b in both if a is not None and b is not None])


def planned_speed(ratio: float, rounds: int) -> str:
    """What a share saves, before anything is measured."""
    of = ", ".join(f"{speed_up(times, 1.0, ratio, rounds):.2f} at {times}" for times in (1, 2, 3))
    return f"times faster than ratio=1, by how many times longer drawing and scoring take than training: {of}"


def _row(one: Round) -> dict[str, object]:
    drawn = one.drawn()
    known = [a for a in drawn if math.isfinite(a.reward)]
    held = [h for h in one.pool.values() if math.isfinite(h.best.reward)]
    mean = sum(one.weights) / len(one.weights)
    losses = [h["loss"] for h in one.trained.history if "loss" in h]
    return {
        "round": one.number, "prompts answered": len(one.answers), "answers": len(drawn),
        "tokens drawn": sum(a.tokens for a in drawn), "cut at max_tokens": sum(a.truncated for a in drawn),
        "tokens scored": one.read,
        "without a reward": len(drawn) - len(known),
        "mean reward drawn": _mean([a.reward for a in known]), "mean reward held": _mean([h.mean for h in held]),
        "mean tokens drawn": _mean([float(a.tokens) for a in known]), "nats from the first student": one.drift,
        "reward and tokens": spearman([a.reward for a in known], [float(a.tokens) for a in known]),
        "pairs": len(one.pairs), "no pair": len(one.pool) - len(one.pairs),
        "mean gap": _mean([pair.margin or 0.0 for pair in one.pairs]),
        "largest weight": max(one.weights), "largest / mean weight": max(one.weights) / mean,
        "tokens of an epoch": one.trained.tokens, "updates": one.trained.steps,
        "left out of training": len(one.left_out),
        "loss, first": losses[0] if losses else None, "loss, last": losses[-1] if losses else None,
    }  # fmt: skip


def _ages(one: Round) -> list[dict[str, object]]:
    """How many pairs of a round are how many rounds old."""
    ages = Counter(one.number - one.pool[id].born_round for id in one.pairs.ids())
    return [{"round": one.number, "rounds old": age, "pairs": ages[age]} for age in sorted(ages)]


def _rewards(one: Round) -> Iterator[Mapping[str, object]]:
    held = [h for h in one.pool.values() if math.isfinite(h.best.reward)]
    sides = {"drawn": [a.reward for a in one.drawn() if math.isfinite(a.reward)],
             "better answers held": [h.best.reward for h in held],
             "worse answers held": [h.worst.reward for h in held]}  # fmt: skip
    for of, rewards in sides.items():
        if rewards:
            yield {"round": one.number, "reward": sum(rewards) / len(rewards), "of": of}


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
