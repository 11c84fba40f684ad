"""GenQA: instruction data from a handful of prompts, in which the model writes a list and chance takes an item of it.

Paper    Chen et al., arXiv:2406.10323
Needs    a model that chats; no data
Changes  creates records; reads none

Stages   list    a numbered list of subtopics, asked for once and used many times (`mode=externalised`)
         answer  whatever the model says to nothing (split `general`)
         ask     a question and its answer, a conversation, a question to an answer
         embed   first two sentences of some of what was made, for the measure of diversity

The paper is silent on
    Its prompts for the splits, temperature, lengths, how much smaller splits weigh: our choices stand here.
    Replies that break the form: rejected with a reason, drawn anew at most twice, and never mended.
    When to stop: the rows are made, duplicates take over (`max_duplicates`), draws are spent (`draws_per_row`).
We differ from the paper
    Lists are asked for apart and cached, and we choose from them: a model that sees the number while it writes the
    list can steer the item. `mode=single-shot` is the paper's.
    Code, tasks and questions with options are duplicates where they are the same throughout, not in two sentences;
    conversations, where they begin alike for thirteen words: greetings are alike.
    The wording of the prompts and the topics are ours.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from statistics import fmean
from typing import Annotated, ClassVar, Literal

import numpy as np

from tunesift.datasets import Dataset
from tunesift.errors import RecipeError
from tunesift.inputs import input_digest
from tunesift.methods.genqa_asking import Asking, Lists, Picked, lists_to_expect, longest_prompt
from tunesift.methods.genqa_draws import Ask, Chance, check_seeds, shares
from tunesift.methods.genqa_prompts import (
    BOOSTERS,
    LANGUAGES,
    LISTED,
    SPLITS,
    Labels,
    SplitName,
    Variant,
    Wording,
    check_generator,
)
from tunesift.methods.genqa_rounds import FIRST_ROUND, GROWTH, Limits, Made, Rounds, most_draws
from tunesift.methods.genqa_sifting import SPLITTER, EmbedQuestion, Sieve, grams_of, nearest
from tunesift.methods.genqa_topics import topics_aside, topics_from, topics_of
from tunesift.models import ChatModel, EmbedModel, name_of
from tunesift.models.base import Sampling
from tunesift.models.ngrams import HashedNgrams
from tunesift.records import Record
from tunesift.running.result import Planned, Reads, Result
from tunesift.running.run import OUTPUT, Run
from tunesift.scoring.deciding import Decisions
from tunesift.scoring.duplicates import NearTexts
from tunesift.settings import INCIDENTAL, Json, Settings, digest

MOST_ROUNDS = 100
"""Rounds of full size in which all rows are asked for once: each is a file that is open until the end."""


@dataclass(frozen=True, kw_only=True)
class GenQA(Settings):
    """GenQA: have a model write questions and answers about what chance takes from its own lists."""

    reads: ClassVar[Reads] = "nothing"
    chats: ClassVar[tuple[str, ...]] = ("model",)
    """Models that must be able to chat."""

    kind: Literal["genqa"] = "genqa"
    model: ChatModel
    """Who writes; the paper has Gemini Pro 1.0."""
    count: int = 1000
    """Rows to make."""
    splits: tuple[SplitName, ...] = ("academic",)
    """What is made, as the public set calls it."""
    balance: float = 0.5
    """Power of the public splits' sizes in the shares of several splits: 1 for theirs, 0 for equal ones; our choice."""
    variants: tuple[Variant, ...] = LISTED
    """Kinds of generators, each as likely as any other; the paper's academic split has these two."""
    mode: Literal["externalised", "single-shot"] = "externalised"
    """Lists asked for apart and used again, or written anew before every row, which is the paper's way."""
    lists: Lists = Lists()
    """How long lists are, and how often one is used."""
    topics: Annotated[tuple[str, ...] | Path | None, INCIDENTAL] = None
    """Topics that conditional generators begin with, or a file of them (.txt, a line each; .json, .jsonl, .csv); None
    for ours. A run knows them by what they say."""
    boosters: tuple[str, ...] = BOOSTERS
    """Last words of a prompt, one of them at random; none where there are none."""
    language: str = "en"
    """Code of the language that rows are to be in; a row with a message certainly in another one is rejected."""
    labels: Labels = Labels()
    """What begins the lines that a reply is read by."""
    prompt: str | None = None
    """A generator of your own, with places such as {topic}, {L} and {N}, for one variant with `mode=single-shot`."""
    temperature: float = 1.0
    """Of all sampling; our choice, the paper's is not known."""
    cold: Annotated[bool, INCIDENTAL] = False
    """Allow a temperature below 0.5, at which the method repeats itself."""
    max_tokens: int | None = None
    """Most tokens of a reply; None for 1,024, and for 2,048 where lists are in it; our choice."""
    tries: int = 2
    """Further draws for a row whose reply cannot be used; our choice."""
    draws_per_row: Annotated[float, INCIDENTAL] = 3.0
    """Most draws for each row of `count`, all further ones included; then the run ends with what there is."""
    max_duplicates: Annotated[float, INCIDENTAL] = 0.5
    """Fraction of the rows of a round that may be duplicates; above it the run ends with what there is."""
    near: float | None = None
    """Jaccard similarity of the runs of three words, from 0.7 to 1, from which on a row is a duplicate too, by what its
    split repeats; None to compare first sentences only, as the paper does."""
    against: Annotated[tuple[Path, ...], INCIDENTAL] = ()
    """Files of evaluation sets; a row that shares thirteen words in a row with one of their texts is left out."""
    round: int = 4096
    """Most draws between two looks at what came of them, after rounds of 64, 256 and 1,024; more where a hundred rounds
    would not do."""
    embedder: EmbedModel = HashedNgrams()
    """For the measure of diversity; the paper's is a MiniLM sentence encoder."""
    measured: int = 3000
    """Most rows whose diversity is measured; the paper's 3,000. It falls with fewer, so compare equal numbers only."""

    def __post_init__(self) -> None:
        self._check_numbers()
        check_seeds(self.model)
        for name in ("splits", "variants"):
            given = getattr(self, name)
            if not given or len(set(given)) < len(given):
                raise RecipeError(
                    f"{name}: must name at least one, and none twice; it has {', '.join(given) or 'none'}."
                )
        if self.language not in LANGUAGES:
            raise RecipeError(f"language: {self.language} is none of {', '.join(LANGUAGES)}.")
        if self.prompt is not None:
            if self.mode != "single-shot" or len(self.variants) > 1:
                raise RecipeError(
                    "prompt: is for one variant, written in one go; add mode=single-shot and one variant."
                )
            check_generator(self.prompt, self.variants[0])
        if isinstance(self.topics, tuple):
            topics_from(self.topics)

    def _check_numbers(self) -> None:
        for name, least in (("count", 1), ("round", 1), ("tries", 0), ("measured", 2), ("max_tokens", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise RecipeError(f"{name}: {value} is too few; write {least} or more.")
        if not 0 <= self.max_duplicates <= 1:
            raise RecipeError(f"max_duplicates: {self.max_duplicates:g} is not a fraction; write 0.5 for one half.")
        if not self.draws_per_row >= 1:
            raise RecipeError(f"draws_per_row: {self.draws_per_row:g} makes too few rows; write 1 or more.")
        if self.near is not None:
            NearTexts(3, self.near)
        if not 0 <= self.balance <= 1:
            raise RecipeError(f"balance: {self.balance:g} is not from 0 to 1; write 0.5, 0 for equal shares.")
        if self.temperature < 0.5 and not self.cold:
            raise RecipeError(f"temperature: at {self.temperature:g} the model repeats itself; write 0.5 or more, or "
                              "cold=true.")  # fmt: skip

    def identity(self) -> str:
        """Digest of what the files it names say, of our topics, of how sentences are split, and how rounds grow."""
        against: list[Json] = [input_digest(path) for path in self.against]
        topics: list[Json] = [topic for split in self.splits for topic in self._topics(split)]
        return digest([SPLITTER, [FIRST_ROUND, GROWTH], against, topics])

    def __call__(self, data: Dataset[Record], run: Run) -> Result:
        """Round by round: draw what is missing, ask, read, and take what is new, until all is made or it must stop."""
        asking, chance = self._asking(), self._chance(run.seed)
        sieve = Sieve(self.near, grams_of(self.against))
        size = max(self.round, math.ceil(self.count / MOST_ROUNDS))
        limits = Limits(most_draws(self.count, self.draws_per_row), self.tries, size, self.max_duplicates)
        rounds = Rounds(shares(self.count, self.splits, self.balance), limits)
        made = Made(sieve, rounds)
        parts: list[Dataset[Record]] = []
        while turns := rounds.next():
            draws = [chance.draw(run.random, *turn) for turn in turns]
            picked = asking(run, draws)
            told = run.map("ask", self._step(), [p.asked for p in picked if isinstance(p, Picked)])
            parts.append(run.dataset(f"round-{len(parts) + 1}", made.of(draws, picked, told)))
            rounds.close()
        output = run.dataset(OUTPUT, chain.from_iterable(parts))
        aside = topics_aside(self.topics)
        tables = {**rounds.tables(), "topics-set-aside": aside, "nothing-came-of": made.lost,
                  "diversity": [*self._diversity(output, run)]}  # fmt: skip
        for name, rows in tables.items():
            if rows:
                run.table(name, rows)
        short = f"{len(output):,} of {self.count:,}; {rounds.short}" if rounds.short else ""
        notes = {"of the topics set aside, first at {row}: {why}".format(**aside[0]): len(aside)} if aside else {}
        return Result(output, Decisions(output, made.decide), format="messages", short=short, notes=notes)

    def plan(self, records: int) -> list[Planned]:
        """One call a row, and one a list; further draws at most."""
        name = name_of(self.model)
        parts = shares(self.count, self.splits, self.balance)
        most = most_draws(self.count, self.draws_per_row)
        lists = self._lists({split: math.ceil(rows / len(self.variants)) for split, rows in parts.items()})
        more_lists = min(2 * most, (1 + self.tries) * self._lists(dict.fromkeys(parts, most))) - lists
        topics = {split: self._topics(split) for split in parts}
        around = longest_prompt(self._wording(), topics, self.variants, self.boosters)
        asked = around + (self._tokens if "general" in parts else 0)  # the answer that a question is written for
        answers = parts.get("general", 0)
        expected = [("list", lists, around, self._list_tokens), ("answer", answers, 0, self._tokens),
                    ("ask", self.count, asked, self._tokens)]  # fmt: skip
        spare = [("list", more_lists, around, self._list_tokens),
                 ("answer", most - answers if answers else 0, 0, self._tokens),
                 ("ask", most - self.count, asked, self._tokens)]  # fmt: skip
        stages = [
            Planned(stage, items, 1, name, around=size, answer=tokens, spare=further)
            for further, group in ((False, expected), (True, spare))
            for stage, items, size, tokens in group if items > 0
        ]  # fmt: skip
        return [*stages, Planned("embed", min(self.measured, self.count), 1, name_of(self.embedder))]

    def _lists(self, rows: Mapping[SplitName, int]) -> int:
        """Lists that so many rows of each variant need, by split."""
        if self.mode == "single-shot":
            return 0
        return sum(
            lists_to_expect(self.lists, count, len(self._topics(split)), variant == "generator-nested")
            for variant in self.variants for split, count in rows.items() if variant in LISTED and split != "general"
        )  # fmt: skip

    def _topics(self, split: SplitName) -> tuple[str, ...]:
        if split == "general":
            return ()
        return topics_of(*SPLITS[split].areas) if self.topics is None else topics_from(self.topics)

    def _chance(self, seed: int) -> Chance:
        topics = {split: self._topics(split) for split in self.splits}
        return Chance(variants=self.variants, topics=topics, boosters=self.boosters, seed=seed)

    @property
    def _tokens(self) -> int:
        """Most tokens of a row, with its lists where the model writes them in the same breath."""
        in_one_go = self.mode == "single-shot" or "generator-uniform" in self.variants
        return self.max_tokens or (2048 if in_one_go else 1024)

    @property
    def _list_tokens(self) -> int:
        return max(1024, 16 * max(self.lists.subtopics, self.lists.topics, self.lists.nested))

    def _step(self, tokens: int | None = None) -> Ask:
        sampling = Sampling(temperature=self.temperature, max_tokens=tokens or self._tokens)
        return Ask(model=self.model, sampling=sampling)

    def _asking(self) -> Asking:
        topics = {split: self._topics(split) for split in self.splits}
        steps = self._step(self._list_tokens), self._step()
        return Asking(self._wording(), self.lists, self.mode, topics, len(self.variants), self.tries, *steps)

    def _wording(self) -> Wording:
        return Wording(self.labels, LANGUAGES[self.language], self.prompt)

    def _diversity(self, output: Dataset[Record], run: Run) -> Iterator[Mapping[str, object]]:
        """How near the nearest other question is: of all that were made, of each variant and each split."""
        places = sorted(run.random("diversity").sample(range(len(output)), min(self.measured, len(output))))
        ids = {next(output[place : place + 1].ids()) for place in places}
        if len(ids) < 2:
            return
        some = output.only(ids)
        vectors = run.map("embed", EmbedQuestion(model=self.embedder), some).good()
        called = f"{name_of(self.embedder)} ({_encoder(self.embedder)})"
        for name in ("", "variant", "split"):
            groups: dict[str, list[tuple[float, ...]]] = {}
            for record in some:
                if record.id in vectors:
                    groups.setdefault(str(record.extra.get(name, "all")), []).append(vectors[record.id])
            own = {group: found for group, found in groups.items() if len(found) > 1}
            if name and len(own) < 2:
                continue
            equal = min(map(len, own.values()), default=0)  # the measure falls with fewer
            for group, found in own.items():
                yield {"of": group, "by": called, "rows": equal, **_spread(nearest(found[:equal]))}


def _encoder(model: EmbedModel) -> str:
    """What the measure is of: the paper's needs a sentence encoder."""
    return "letters, not meaning" if isinstance(model, HashedNgrams) else "cosine"


def _spread(values: Sequence[float]) -> dict[str, object]:
    """Mean and quarters of nearest-neighbour similarities; the mean is the paper's S, lower is more diverse."""
    least, first, middle, third, most = (float(x) for x in np.quantile(values, (0, 0.25, 0.5, 0.75, 1)))
    found = {"mean": fmean(values), "least": least, "quarter": first, "median": middle, "three_quarters": third,
             "most": most}  # fmt: skip
    return {name: round(value, 4) for name, value in found.items()}
