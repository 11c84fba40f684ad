"""What is a draw asked as? Its prompt, with the lists, or the answer, that must be asked for before."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from tunesift.errors import RecipeError
from tunesift.methods.genqa_checks import Rejected, Wanted
from tunesift.methods.genqa_draws import Ask, Asked, Draw, check_place, place
from tunesift.methods.genqa_prompts import LANGUAGES, LISTED, NOTHING, SplitName, Variant, Wording
from tunesift.methods.genqa_reading import LONGEST_NAME, distinct_items, read_answer
from tunesift.methods.genqa_sifting import text_number
from tunesift.models.base import Completion
from tunesift.records import Failure
from tunesift.running.run import Run
from tunesift.settings import Settings

Mode = Literal["externalised", "single-shot"]


@dataclass(frozen=True, kw_only=True)
class Lists(Settings):
    """How long the lists are, and how often one is used."""

    subtopics: int = 40
    """Items of the list of `generator-conditional`; the paper's 40."""
    topics: int = 60
    """Items of the first list of `generator-nested` and `generator-uniform`; the paper's 60."""
    nested: int = 60
    """Items of their second list; the paper's 60."""
    reuse: int = 200
    """How often a list of subtopics is used, on average, before another is asked for; with `mode=externalised`."""

    def __post_init__(self) -> None:
        for name, value in (("subtopics", self.subtopics), ("topics", self.topics), ("nested", self.nested)):
            if value < 1:
                raise RecipeError(f"lists.{name}: {value} is no number of items; write 1 or more.")
        if self.reuse < 1:
            raise RecipeError(f"lists.reuse: {self.reuse} is no number of uses; write 1 or more.")


@dataclass(frozen=True, slots=True)
class Picked:
    """A draw as it is asked."""

    asked: Asked
    wanted: Wanted


@dataclass(frozen=True, slots=True)
class _List:
    id: str
    prompt: str
    size: int


@dataclass
class Asking:
    """Turns draws into prompts; remembers lists and answers, which are folded from outcomes."""

    wording: Wording
    lists: Lists
    mode: Mode
    topics: Mapping[SplitName, tuple[str, ...]]
    variants: int
    """Kinds of generators: one draw in so many is of any one, and uses its lists."""
    tries: int
    """Further tries of a list, one a round."""
    list_step: Ask
    answer_step: Ask
    _known: dict[str, tuple[str, ...]] = field(default_factory=dict)
    _tried: Counter[str] = field(default_factory=Counter)
    _answers: set[int] = field(default_factory=set)

    def __call__(self, run: Run, draws: Sequence[Draw]) -> list[Picked | Rejected]:
        """Of every draw the prompt, or why there is none; lists and answers are asked for first."""
        apart = [d for d in draws if self._is_apart(d)]
        self._fetch(run, [self._first(d) for d in apart])
        self._fetch(run, [second for d in apart if (second := self._second(d)) is not None])
        general = [d for d in draws if d.split == "general"]
        answers = self._answered(run, general) if general else {}
        return [self._picked(d, answers) for d in draws]

    def _is_apart(self, draw: Draw) -> bool:
        return self.mode == "externalised" and draw.variant in LISTED

    def _first(self, draw: Draw) -> _List:
        """The list that a draw first chooses from; another one after so many draws that use it."""
        uses = self.lists.reuse * self.variants
        if draw.variant == "generator-nested":
            number = draw.idx // (uses * self.lists.topics)
            size = self.lists.topics
            return _List(f"{draw.split}-all-{number}", self.wording.topics(draw.split, size), size)
        topics = self.topics[draw.split]
        number, size = draw.idx // (uses * len(topics)), self.lists.subtopics
        id = f"{draw.split}-topic-{topics.index(draw.topic) + 1}-{number}"
        return _List(id, self.wording.subtopics(draw.topic, size), size)

    def _second(self, draw: Draw) -> _List | None:
        """The list of subtopics of what was chosen from a first one."""
        first = self._first(draw)
        items = self._known.get(first.id, ())
        if draw.variant != "generator-nested" or not items:
            return None
        number, size = place(draw.first, len(items)), self.lists.nested
        return _List(f"{first.id}-{number}", self.wording.subtopics(items[number - 1], size), size)

    def _fetch(self, run: Run, lists: Sequence[_List]) -> None:
        """Ask for the lists that are not known, each once; one that cannot be used is asked for again next round."""
        wanted = {one.id: one for one in lists if one.id not in self._known and self._tried[one.id] <= self.tries}
        if not wanted:
            return
        ids = {id: f"{id}~again-{n}" if (n := self._tried[id]) else id for id in wanted}
        items = [Asked(ids[id], one.prompt, _seed(run, ids[id])) for id, one in wanted.items()]
        told = run.map("list", self.list_step, items).good()
        for id, one in wanted.items():
            self._tried[id] += 1
            names = distinct_items(told[ids[id]]) if ids[id] in told else ()
            if 2 * len(names) >= one.size:
                self._known[id] = names

    def _answered(self, run: Run, draws: Sequence[Draw]) -> dict[str, str | Rejected]:
        """What the model says to nothing, without what it said before."""
        told = run.map("answer", self.answer_step, [Asked(d.id, NOTHING, d.seed) for d in draws])
        found: dict[str, str | Rejected] = {}
        for draw in draws:
            answer = answer_or_reason(told[draw.id], self._code)
            if isinstance(answer, str) and (number := text_number(answer)) in self._answers:
                answer = Rejected("duplicate", "an earlier answer said the same")
            elif isinstance(answer, str):
                self._answers.add(number)
            found[draw.id] = answer
        return found

    @property
    def _code(self) -> str:
        return next((code for code, name in LANGUAGES.items() if name == self.wording.language), "")

    def _picked(self, draw: Draw, answers: Mapping[str, str | Rejected]) -> Picked | Rejected:
        if draw.split == "general":
            answer = answers[draw.id]
            if isinstance(answer, Rejected):
                return answer
            wanted = self._wanted(draw, self.wording.question_to(""), given=answer)
            return Picked(Asked(draw.id, self.wording.question_to(answer), draw.seed), wanted)
        if self._is_apart(draw):
            return self._chosen(draw)
        sizes = self._sizes(draw)
        drawn = (draw.first, draw.second)[: len(sizes)]
        numbers = [place(where, size) for where, size in zip(drawn, sizes, strict=True)]
        for number, size in zip(numbers, sizes, strict=True):
            check_place(number, size)
        said = {"topic": draw.topic, "booster": draw.booster}
        names = [("L", "N")] if len(sizes) == 1 else [("L1", "N1"), ("L2", "N2")][: len(sizes)]
        for (size_name, name), size, number in zip(names, sizes, numbers, strict=True):
            said |= {size_name: str(size), name: str(number)}
        prompt = self.wording.generator(draw.split, draw.variant, **said)
        shown = [*numbers, None, None] if draw.variant != "generator-uniform" else [None, None]
        wanted = self._wanted(draw, prompt, topic=draw.topic, n1=shown[0], n2=shown[1], lists=len(sizes))
        return Picked(Asked(draw.id, prompt, draw.seed), wanted)

    def _sizes(self, draw: Draw) -> tuple[int, ...]:
        """Of the lists that the model itself writes before the row."""
        if draw.variant == "generator-conditional":
            return (self.lists.subtopics,)
        return (self.lists.topics, self.lists.nested) if draw.variant.startswith("generator") else ()

    def _chosen(self, draw: Draw) -> Picked | Rejected:
        """The prompt about what chance takes from the lists."""
        first, second = self._first(draw), self._second(draw)
        items = self._known.get(first.id, ())
        if not items or (second is not None and second.id not in self._known):
            return Rejected("no_list", f"{second.id if second else first.id}: fewer than half of the items asked for")
        n1, n2 = place(draw.first, len(items)), None
        topic, subtopic = draw.topic, items[n1 - 1]
        if second is not None:
            inner = self._known[second.id]
            n2 = place(draw.second, len(inner))
            topic, subtopic = items[n1 - 1], inner[n2 - 1]
        said = {"topic": topic, "subtopic": subtopic, "booster": draw.booster}
        prompt = self.wording.about(draw.split, draw.variant, **said)
        wanted = self._wanted(draw, prompt, topic=topic, subtopic=subtopic, n1=n1, n2=n2)
        return Picked(Asked(draw.id, prompt, draw.seed), wanted)

    def _wanted(self, draw: Draw, prompt: str, **more: object) -> Wanted:
        return Wanted(draw.split, draw.variant, self.wording.labels, prompt, self._code, **more)  # type: ignore[arg-type]


def answer_or_reason(said: Completion | Failure, language: str) -> str | Rejected:
    """The text of an answer to nothing, or why it is none."""
    return failed(said) if isinstance(said, Failure) else read_answer(said, language)


def failed(failure: Failure) -> Rejected:
    """A call that came to nothing, as a reason."""
    return Rejected(f"failed ({failure.kind})", failure.message)


def lists_to_expect(lists: Lists, rows: int, topics: int, nested: bool) -> int:
    """Lists that so many rows of a split use at most, where every list can be used."""
    if not rows:
        return 0
    if nested:
        firsts = math.ceil(rows / (lists.reuse * lists.topics))
        return firsts + min(rows, firsts * lists.topics)
    return min(rows, topics * math.ceil(rows / (lists.reuse * topics)))


def longest_prompt(
    wording: Wording,
    topics: Mapping[SplitName, Sequence[str]],
    variants: Sequence[Variant],
    boosters: Sequence[str],
) -> int:
    """Most bytes of a prompt, whatever is drawn and whatever a list holds; of an answer that is asked about, none."""
    name = "x" * (4 * LONGEST_NAME)
    found = [
        wording.question_to(""),
        wording.subtopics(name, 10**5),
        *(wording.topics(split, 10**5) for split in topics),
    ]
    for split, begins in topics.items():
        topic = max((name, *begins), key=lambda text: len(text.encode()))
        booster = max(("", *boosters), key=lambda text: len(text.encode()))
        values = {"topic": topic, "booster": booster} | dict.fromkeys(("L", "N", "L1", "N1", "L2", "N2"), "99999")
        for variant in variants:
            found += [
                wording.generator(split, variant, **values),
                wording.about(split, variant, subtopic=name, **values),
                wording.subtopics(topic, 10**5),
            ]
    return max(len(prompt.encode()) for prompt in found)


def _seed(run: Run, id: str) -> int:
    return run.random("genqa-list", id).getrandbits(31)
