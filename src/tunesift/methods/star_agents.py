"""Star-Agents: many models write, two models weigh, and the better pairs are asked more often.

Paper    arXiv:2411.14497
Needs    agents that chat, one of them as the base; a judge; the model that will be tuned and a larger one with the same
         tokenizer, which give losses; an embedder
Changes  replaces the response, and with `rewrite` the instruction, of every record for which somebody wrote something

Stages   embed        of the seed's instruction, for the memory bank
         instruct     with `rewrite`: the first agent of each pair writes a new instruction (eq. 2)
         respond      the second one responds (eq. 2-3); the base pairs for every seed, others as drawn. Agents that are
                      weights on this machine have stages of their own, instruct-NAME and respond-NAME
         ifd-small, ifd-large  of every candidate (eq. 4), whose gap is its difficulty (eq. 5)
         judge        the candidate against the base, in both orders (eq. 6); judge-again where a verdict is missing
         score        the winner's difficulty times quality (eq. 7, 1)
         Then probabilities and memory bank are made anew (eq. 8), and the next seeds have their turn.

The paper is silent on
    The batch of eq. 5 (ours: a seed's candidates), its negative and zero gaps (worth 0: they would turn signs and make
    the worst win), an IFD of 1 or more (worth 0), beta (5 / seeds), n and l (10 and 2), the members of the base (the
    first agent), the larger scorer (any with the same tokenizer), prompts and temperatures (ours), several updates of a
    seed (added, then divided once), a seed where nothing is worth anything (the base wins; without one, it stays).
    Which order the judge sees: both; a side is better only where both orders say so.
    The memory bank has the seed's instruction's vector, and of winners those that were drawn and are worth something.
We differ from the authors, who released no code
    Seeds have their turn sixteen at a time, with the probabilities they found; `faithful` takes one.
    A candidate that cannot win is not judged, and its pair is worth 0 for that seed; `faithful` judges all.
    Several turns, images and tools are left alone, as the method knows one instruction and one response.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import ClassVar, Literal

import numpy as np

from tunesift.datasets import Dataset
from tunesift.errors import RecipeError
from tunesift.methods.refining import check_refinable, tell_refined
from tunesift.methods.speaking import Hearing, Speak
from tunesift.methods.star_agents_crowning import Standing, above_0, next_to_judge, rewards, scaled, winner
from tunesift.methods.star_agents_drafts import Candidate, Wanted, first_alike, pairs_among, written
from tunesift.methods.star_agents_judging import ASK, JUDGE, REMIND, TWINS, Match, Settled, judged, read_verdict
from tunesift.methods.star_agents_pool import MemoryBank, Pair, PairPool
from tunesift.methods.star_agents_telling import Crowned, Provenance, Told, WriteDown
from tunesift.methods.star_agents_writing import (
    REWRITE,
    REWRITER,
    Agent,
    EmbedInstruction,
    Writing,
    check_agents,
    left_alone,
)
from tunesift.models import ChatModel, EmbedModel, LikelihoodModel, name_of
from tunesift.models.alike import evened
from tunesift.models.base import Sampling
from tunesift.models.ngrams import HashedNgrams
from tunesift.parsing import Verdict
from tunesift.prompts import Template
from tunesift.records import Decision, Failure, Record
from tunesift.running.result import Planned, Result
from tunesift.running.run import OUTPUT, Run
from tunesift.scoring.dual_ifd import DualRatio, check_tokens, difficulties, gap_of, size_of, without_large
from tunesift.scoring.ifd import IFD
from tunesift.settings import Settings

ROUND = 16
"""Seeds of a round, where it is not set and the run need not be faithful."""
RATE = 5.0
"""beta times the number of seeds, where it is not set: 7e-5 for the paper's 70,000."""
PERCENTILE = 95
"""Of the positive gaps so far, what `scale=running` divides by."""


@dataclass(frozen=True, kw_only=True)
class StarAgents(Settings):
    """Star-Agents: many models write, two models weigh, and the better pairs are asked more often."""

    kind: Literal["star-agents"] = "star-agents"
    agents: tuple[Agent, ...]
    """Who writes; two or more."""
    base: tuple[str, ...] = ()
    """Names of the agents that write a base candidate for every seed, in both roles; the first agent, where none is
    named. What they write is what others are compared with: name the strongest."""
    pairs: tuple[str, ...] = ()
    """Pairs to draw from, as `instructs+responds`, or `responds` without `rewrite`; all there can be, where none is
    named. The paper has 10."""
    rewrite: bool = False
    """Have instructions rewritten too. The paper's experiments keep those of the seeds."""
    judge: ChatModel
    """Who compares a candidate with the base; the paper has ChatGPT."""
    small: LikelihoodModel
    """The model that will be tuned, as it is before."""
    large: LikelihoodModel
    """A larger model, with the same tokenizer unless `ratio` is loss or byte."""
    embedder: EmbedModel = HashedNgrams()
    """What makes two instructions alike."""
    draws: int = 5
    """Pairs drawn for a seed, M, or as many as there are; the paper's 5 of 10."""
    near: int = 10
    """Entries of the memory bank that are looked up for a seed, n; our choice."""
    from_near: int = 2
    """Pairs that are drawn of theirs, l; our choice."""
    rate: float | None = None
    """How far one reward moves a pair's probability, beta (eq. 8); None for 5 / seeds, our choice."""
    floor: float = 0.0
    """Probability below which no pair falls; 0, as published, lets one vanish. 0.01 is a cautious choice."""
    ratio: DualRatio = "perplexity"
    """What IFD sets in relation (eq. 4): perplexities, as published; loss or byte for two tokenizers."""
    scale: Literal["seed", "running"] = "seed"
    """What a gap is divided by (eq. 5): the largest among the seed's candidates, or the 95th percentile of all positive
    gaps of earlier rounds, so that the largest gap of a seed is not worth 1 however small it is; our choice."""
    template: Template = "chat"
    """What stands around an instruction for the scorers: best the template of the tuning."""
    round_size: int | None = None
    """Seeds drawn from one set of probabilities; None for 16. 1 is the paper, more is faster."""
    faithful: bool = False
    """As published: rounds of one seed, every candidate scored by both models and judged, so that every pair that wrote
    gets its reward. Costs about twice the calls of the judge; the winners of a round are the same."""
    judge_tokens: int = 512
    """Most tokens of a judgement."""
    writing: Writing = Writing()
    """How agents are asked."""

    chats: ClassVar[tuple[str, ...]] = ("agents", "judge")
    """Models that must be able to chat."""

    def __post_init__(self) -> None:
        sizes = (("draws", self.draws, 1), ("near", self.near, 0), ("from_near", self.from_near, 0),
                 ("judge_tokens", self.judge_tokens, 1), ("round_size", self._round, 1))  # fmt: skip
        for name, value, least in sizes:
            if value < least:
                raise RecipeError(f"{name}: {value} is too few; write {least} or more.")
        if self.rate is not None and not self.rate > 0:
            raise RecipeError(f"rate: {self.rate:g} moves nothing; write a small number such as 0.0001.")
        if self.faithful and self.round_size not in (None, 1):
            raise RecipeError(f"round_size: {self.round_size} is not faithful, which is 1; leave one of them out.")
        check_agents(self.agents, self.base)
        count = len(self._pairs)
        if self.from_near >= self.draws < count:
            raise RecipeError(f"from_near: {self.from_near} of {self.draws} draws leave none to other pairs, so that "
                              f"nothing new is tried; write {self.draws - 1}.")  # fmt: skip
        if not 0 <= self.floor * count < 1:
            raise RecipeError(f"floor: {self.floor:g} times {count} pairs must be below 1; write 0.01.")

    def __call__(self, data: Dataset[Record], run: Run) -> Result:
        """Draw, write, weigh, judge, crown, evolve; so many seeds at a time."""
        check_refinable(data, instructions=self.rewrite)
        left = {record.id: why for record in data if (why := left_alone(record))}
        seeds = data.only({id for id in data.ids() if id not in left})
        pool, bank = PairPool.uniform(self._pairs), MemoryBank()
        told = Told(self.agents, run, pool)
        crowned, gaps = list[Crowned](), list[float]()
        for part in seeds.batches(self._round):
            run.turn(len(crowned), len(seeds))
            vectors = run.map("embed", EmbedInstruction(model=self.embedder), part).good()
            wanted = [one for seed in part for one in self._wanted(seed, pool, bank, vectors.get(seed.id), run)]
            drafts = written(run, wanted, self.agents, self.writing, self.rewrite)  # eq. 2-3
            standings = self._judged(run, self._standings(run, drafts.candidates, gaps))  # eq. 4-6
            found = [
                Crowned(seed, winner(standings[seed.id]), drafts.why_no_base(seed.id)) for seed in part
            ]  # eq. 7, 1
            worth = (rewards(standings[seed.id]) for seed in part)
            pool = pool.evolved(worth, self.rate or RATE / len(seeds), self.floor)  # eq. 8
            told.add(drafts, standings, found, pool, [vectors.get(seed.id) for seed in part])
            for one in found:
                bank.add(vectors.get(one.id), one.earner)
            crowned += found
            gaps += above_0(standings)
        run.turn(len(crowned), len(seeds))
        run.map("score", WriteDown(), crowned)
        return self._result(data, left, crowned, run, told)

    def plan(self, records: int) -> list[Planned]:
        """A seed's embedding; a call for each base and drawn pair, two with `rewrite`; four passes of a scorer for each
        candidate; two calls of the judge for each that was drawn, fewer unless `faithful`."""
        pairs, drawn = self._pairs, min(self.draws, len(self._pairs)) * records
        base = len(self._bases) * records
        planned = [Planned("embed", records, 1, name_of(self.embedder))]
        stages = [("respond", "responds", 0, self.writing.response_tokens)]
        if self.rewrite:
            around = len((REWRITER + REWRITE).encode())
            stages.insert(0, ("instruct", "instructs", around, self.writing.instruction_tokens))
        for stage, role, around, tokens in stages:
            for agent in self.agents:
                own = sum(getattr(pair, role) == agent.name for pair in pairs)
                calls = ceil(own * drawn / len(pairs)) + sum(name == agent.name for name in self._bases) * records
                if calls:
                    name = stage if agent.is_endpoint else f"{stage}-{agent.name}"
                    planned.append(Planned(name, calls, 1, name_of(agent.model), around=around, answer=tokens))
        planned += [
            Planned("ifd-small", base + drawn, 2, name_of(self.small)),
            Planned("ifd-large", base + drawn, 2, name_of(self.large)),
            *self._judge.planned(len((JUDGE + ASK).encode()) + 2 * self.writing.response_tokens, 2 * drawn),
            Planned("score", records, 0, ""),
        ]
        return [replace(one, rounds=max(1, ceil(records / self._round))) for one in planned]

    @property
    def _round(self) -> int:
        return (1 if self.faithful else ROUND) if self.round_size is None else self.round_size

    @property
    def _judge(self) -> Hearing[Verdict]:
        judge = Speak(speaker=self.judge, sampling=Sampling(max_tokens=self.judge_tokens))
        return Hearing("judge", judge, REMIND, read_verdict)

    @property
    def _bases(self) -> tuple[str, ...]:
        return self.base or (self.agents[0].name,)

    @property
    def _pairs(self) -> list[Pair]:
        return pairs_among(self.agents, self.rewrite, self.pairs)

    def _wanted(
        self, seed: Record, pool: PairPool, bank: MemoryBank, vector: Sequence[float] | None, run: Run
    ) -> list[Wanted]:
        """What is to be written for a seed: by the base pairs, and by those that are drawn."""
        near = bank.near(vector, self.near)
        drawn = pool.draw(self.draws, near, self.from_near, run.random("pairs", seed.id))
        base = [Pair(name if self.rewrite else "", name) for name in self._bases]
        return [*(Wanted(seed, pair, True) for pair in base), *(Wanted(seed, pair, False) for pair in drawn)]

    def _standings(
        self, run: Run, found: Mapping[str, Sequence[Candidate]], gaps: Sequence[float]
    ) -> dict[str, list[Standing]]:
        """How difficult every candidate is; the large scorer is asked only where that is not known without it. Two of a
        seed that say the same are weighed once, since a batch's rounding must not tell them apart."""
        first = {id: twin for own in found.values() for id, twin in first_alike(own).items()}
        records = [one.record for own in found.values() for one in own if first[one.record.id] == one.record.id]
        scorers = [IFD(student=model, template=self.template) for model in evened(self.small, self.large)]
        small = run.map("ifd-small", scorers[0], records)
        sizes = {record.id: size_of(record) for record in records}
        known = {r.id: without_large(small[r.id], self.ratio, sizes[r.id]) for r in records}
        asked = [r for r in records if self.faithful or known[r.id] is None]
        large = run.map("ifd-large", scorers[1], asked)
        for id in large if self.ratio == "perplexity" else ():
            check_tokens(id, small[id], large[id])
        largest = float(np.percentile(gaps, PERCENTILE)) if gaps and self.scale == "running" else 0.0
        standings, order = {}, {pair: place for place, pair in enumerate(self._pairs)}
        for seed, drafted in found.items():
            own = sorted(drafted, key=lambda one: -1 if one.base else order[one.pair])
            ids = [first[candidate.record.id] for candidate in own]
            measured = [known[id] or gap_of(small[id], large[id], self.ratio, sizes[id]) for id in ids]
            values = [None if isinstance(gap, Failure) else gap.value for gap in measured]
            shares = scaled(values, largest) if largest > 0 else difficulties(values)
            standings[seed] = [Standing(*each) for each in zip(own, measured, shares, strict=True)]
        return standings

    def _judged(self, run: Run, standings: Mapping[str, list[Standing]]) -> dict[str, list[Standing]]:
        """Every candidate against its seed's first base, hardest first, until the winner is known; or all of them."""
        bases = {seed: next((s for s in own if s.candidate.base), None) for seed, own in standings.items()}
        settled = {id: TWINS for seed, own in standings.items() for id in _twins(bases[seed], own)}
        while True:
            standings = {seed: [_with(s, settled) for s in own] for seed, own in standings.items()}
            matches = [
                Match(standing.candidate.record, base.candidate.record)
                for seed, own in standings.items()
                if (base := bases[seed]) is not None
                for standing in (own if self.faithful else [next_to_judge(own)])
                if standing is not None and standing.quality is None
            ]
            if not matches:
                return dict(standings)
            settled |= judged(run, self._judge, matches)

    def _result(
        self, data: Dataset[Record], left: Mapping[str, str], crowned: Sequence[Crowned], run: Run, told: Told
    ) -> Result:
        of = {one.id: one for one in crowned}
        decisions = [of[id].decision() if id in of else _left_alone(data.by_id(id), left[id]) for id in data.ids()]
        there = (of[d.record_id].chosen if d.record_id in of else data.by_id(d.record_id) for d in decisions
                 if d.action != "drop")  # fmt: skip
        output = run.dataset(OUTPUT, (record for record in there if record is not None))
        doubts = told.tables()
        tell_refined(run, data, output)
        return Result(output, decisions, Provenance(crowned, left), notes=doubts)


def _left_alone(record: Record, why: str) -> Decision:
    return Decision(record.id, "keep" if record.response.strip() else "drop", f"left alone ({why})")


def _twins(base: Standing | None, own: Sequence[Standing]) -> list[str]:
    """Drawn candidates that say just what the base says."""
    if base is None:
        return []
    return [s.id for s in own if not s.candidate.base and s.candidate.record.messages == base.candidate.record.messages]


def _with(standing: Standing, settled: Mapping[str, Settled]) -> Standing:
    return standing if standing.candidate.base else replace(standing, match=settled.get(standing.id))
