"""Which records can a student be trained on? How many tokens each has in the student's template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from tunesift.models.folders import tokenizer
from tunesift.models.transformers import TransformersModel
from tunesift.models.turns import Encoder
from tunesift.prompts import Template
from tunesift.records import Failure, Preference, Record, Score
from tunesift.running.step import Outcomes
from tunesift.settings import Settings
from tunesift.tuning.encoding import PairEncoder


@dataclass(frozen=True, kw_only=True)
class MeasureTokens(Settings):
    """How many tokens a record, or a preference pair, has in the student's template; none is cut."""

    kind: Literal["tokens"] = "tokens"
    student: TransformersModel
    template: Template
    most: int | None
    """Most tokens that are trained on."""

    returns: ClassVar[type[Score]] = Score

    def __call__(self, chunk: Sequence[Record | Preference], /) -> list[Score | Failure]:
        """Tokens of prompt and response, or of prompt and longer answer; without a value where they are too many."""
        reader = tokenizer(self.student.location, self.student.revision)
        of_record, of_pair = Encoder(reader, self.template), PairEncoder(reader, self.template)
        return [self._of_pair(of_pair, row) if isinstance(row, Preference) else self._of_record(of_record, row)
                for row in chunk]  # fmt: skip

    def _of_record(self, encode: Encoder, record: Record) -> Score:
        found = encode(record)
        if isinstance(found, Failure):
            return Score(None, note=f"{found.kind}: {found.message}")
        parts = {"prompt": float(found.start), "response": float(len(found.ids) - found.start)}
        return self._score(len(found.ids), parts)

    def _of_pair(self, encode: PairEncoder, pair: Preference) -> Score:
        if pair.chosen.text.strip() == pair.rejected.text.strip():
            return Score(None, note="both answers are the same")
        found = encode(pair)
        if isinstance(found, Failure):
            return Score(None, note=f"{found.kind}: {found.message}")
        sides = {"prompt": found.prompt, "chosen": found.chosen, "rejected": found.rejected}
        return self._score(found.longest, {name: float(len(ids)) for name, ids in sides.items()})

    def _score(self, tokens: int, parts: Mapping[str, float]) -> Score:
        if self.most is not None and tokens > self.most:
            return Score(None, parts, f"too long: {tokens:,} tokens, the limit is {self.most:,}")
        return Score(float(tokens), parts)


def noted(score: Score | Failure) -> Score:
    """A failure is a note why there is no number."""
    return Score(None, note=f"{score.kind}: {score.message}") if isinstance(score, Failure) else score


def first_reason(measured: Outcomes[Score]) -> str:
    """Why the first of what was measured is not trained on."""
    return noted(measured[next(iter(measured))]).note
