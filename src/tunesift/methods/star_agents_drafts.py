"""What did pairs of agents write for a seed, and what of it can be used?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from tunesift.errors import RecipeError, shown
from tunesift.methods.star_agents_pool import Pair
from tunesift.methods.star_agents_writing import (
    Agent,
    Task,
    Write,
    Writing,
    asked_to_respond,
    asked_to_rewrite,
    read_instruction,
    read_response,
)
from tunesift.models.base import Completion, Sampling
from tunesift.records import Failure, Message, Record
from tunesift.running.run import Run

ROLES = ("instructions", "responses")


def pairs_among(agents: Sequence[Agent], rewrite: bool, named: Sequence[str]) -> list[Pair]:
    """The pairs that are drawn from, in their order: those that are named, else all there can be.

    Raises `RecipeError` for a name that is none of them.
    """
    of = {role: [a.name for a in agents if a.writes in ("both", role)] for role in ROLES}
    instructors = of["instructions"] if rewrite else [""]
    there = {pair.name: pair for i in instructors for r in of["responses"] for pair in [Pair(i, r)]}
    if unknown := [name for name in named if name not in there]:
        raise RecipeError(f'pairs: "{shown(unknown[0])}" is none of the pairs; there are {", ".join(there)}.')
    return [there[name] for name in dict.fromkeys(named)] or list(there.values())


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a pair is to write for a seed."""

    seed: Record
    pair: Pair
    base: bool

    @property
    def id(self) -> str:
        """The candidate's: `a1b2~phi+gpt`, `a1b2~base~gpt`."""
        return f"{self.seed.id}~{'base~' * self.base}{self.pair.name}"


@dataclass(frozen=True, slots=True)
class Candidate:
    """What a pair wrote for a seed."""

    record: Record
    pair: Pair
    base: bool


def first_alike(own: Sequence[Candidate]) -> dict[str, str]:
    """By the id of each candidate of a seed, that of the first one that says the same."""
    said: dict[tuple[Message, ...], str] = {}
    return {one.record.id: said.setdefault(one.record.messages, one.record.id) for one in own}


@dataclass(frozen=True, slots=True)
class Lost:
    """What an agent wrote, or did not write, and cannot be used."""

    wanted: Wanted
    agent: str
    failure: Failure
    instruction: bool = False
    """Whether it is the rewritten instruction, in whose place the seed's own stands."""


@dataclass
class Drafts:
    """What was written for some seeds."""

    candidates: dict[str, list[Candidate]]
    """By the seed's id; base candidates first, then in the order of the draw."""
    lost: list[Lost] = field(default_factory=list)
    replies: list[tuple[str, int]] = field(default_factory=list)
    """The agent of each call, and the tokens it wrote; 0 where it did not answer."""

    def why_no_base(self, seed: str) -> str:
        """Why a seed has no base candidate; empty where it has one."""
        if any(candidate.base for candidate in self.candidates[seed]):
            return ""
        lost = (one for one in self.lost if one.wanted.base and one.wanted.seed.id == seed and not one.instruction)
        return "; ".join(f"{one.agent} {one.failure.kind}, {one.failure.message}" for one in lost)


def written(run: Run, wanted: Sequence[Wanted], agents: Sequence[Agent], writing: Writing, rewrite: bool) -> Drafts:
    """Have every pair write for its seed: an instruction, where that is wished, and the response to it.

    A reply that cannot be used makes one candidate fewer; a rewritten instruction that cannot, leaves the seed's own.
    """
    drafts = Drafts({one.seed.id: [] for one in wanted})
    asked = {one.id: one.seed.prompt[-1].text for one in wanted}
    if rewrite:
        tasks = [Task(one.id, one.pair.instructs, asked_to_rewrite(one.seed), one.base) for one in wanted]
        told = _told(run, "instruct", agents, _sampling(writing, writing.instruction_tokens), tasks)
        for one in wanted:
            drafts.replies.append(_counted(one.pair.instructs, told[one.id]))
            new = read_instruction(told[one.id], asked[one.id])
            if isinstance(new, Failure):
                drafts.lost.append(Lost(one, one.pair.instructs, new, instruction=True))
            else:
                asked[one.id] = new
    tasks = [Task(w.id, w.pair.responds, asked_to_respond(w.seed, asked[w.id], writing.hint), w.base) for w in wanted]
    told = _told(run, "respond", agents, _sampling(writing, writing.response_tokens), tasks)
    for one in wanted:
        drafts.replies.append(_counted(one.pair.responds, told[one.id]))
        said = read_response(told[one.id])
        record = said if isinstance(said, Failure) else _record(one, asked[one.id], said)
        own = drafts.candidates[one.seed.id]
        if isinstance(record, Record) and any(c.record.messages == record.messages for c in own if not c.base):
            record = Failure("unreadable", "duplicate: another pair wrote the same for this seed")
        if isinstance(record, Failure):
            drafts.lost.append(Lost(one, one.pair.responds, record))
        else:
            own.append(Candidate(record, one.pair, one.base))
    return drafts


def _told(
    run: Run, stage: str, agents: Sequence[Agent], sampling: Sampling, tasks: Sequence[Task]
) -> dict[str, Completion | Failure]:
    """The replies to all tasks: endpoints are asked together, since they wait; weights on this machine in turn."""
    groups = {"": tuple(agent for agent in agents if agent.is_endpoint)}
    groups |= {f"-{agent.name}": (agent,) for agent in agents if not agent.is_endpoint}
    told: dict[str, Completion | Failure] = {}
    for name, group in groups.items():
        names = {agent.name for agent in group}
        own = [task for task in tasks if task.agent in names]
        if own:
            outcomes = run.map(f"{stage}{name}", Write(agents=group, sampling=sampling), own)
            told |= {task.id: outcomes[task.id] for task in own}
    return told


def _sampling(writing: Writing, max_tokens: int) -> Sampling:
    return Sampling(temperature=writing.temperature, max_tokens=max_tokens)


def _counted(agent: str, said: Completion | Failure) -> tuple[str, int]:
    return agent, 0 if isinstance(said, Failure) else said.tokens


def _record(wanted: Wanted, instruction: str, response: str) -> Record:
    *before, asked = wanted.seed.prompt
    messages = (*before, replace(asked, text=instruction), Message("assistant", response))
    return replace(wanted.seed, id=wanted.id, messages=messages)
