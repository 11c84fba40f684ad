"""No setting without effect: each that decides a result is changed alone, and something else comes of it.

The settings are found by walking a recipe's types. One that is marked incidental may change nothing; any other needs a
line in the table below: settings, another value for the field, and what is seen to come of them.
"""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import json
import random
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args, get_type_hints

import pyarrow.parquet as pq
import pytest

from faultserver.fixtures import Ledger, Make
from harness.debater import WHY, debated
from harness.generator import generated
from harness.larger import Larger
from harness.policies import TABLE, drawn_table, simulated
from harness.preferring import preferences, rewarding
from harness.seeing import asked as pictured
from harness.seeing import embedded, job, llava, pair
from harness.seeing import trained as trained_to_see
from harness.stars import QUALITY, Planted, Umpire
from harness.taggers import Pipeline, spacy_with
from harness.tiny import classifier, encoder
from harness.training import here, letters
from tunesift import (
    DPO,
    IFD,
    SFT,
    Above,
    Agent,
    Analyser,
    Asking,
    ByRating,
    ByReward,
    Cherry,
    Clear,
    Combined,
    Completion,
    Confident,
    Controllability,
    Correct,
    Dataset,
    Debating,
    Debatune,
    Distinct,
    Diverse,
    DualIFD,
    Embeddings,
    GenQA,
    HashedNgrams,
    Labels,
    Largest,
    Lists,
    Local,
    Longest,
    LoRA,
    MCTune,
    MCTuneEvaluate,
    Message,
    NliModel,
    NoContradiction,
    Odin,
    OPTune,
    Parroting,
    Perplexity,
    PreExperience,
    Preference,
    Quota,
    Random,
    Rater,
    Recipe,
    Record,
    Reflection,
    ReversedIFD,
    RewardClassifier,
    RewardTuner,
    Run,
    Sampling,
    ScoreRecords,
    ScriptedModel,
    ScriptedTagger,
    Select,
    SelectIT,
    SelectiveReflection,
    SentenceModel,
    Settings,
    Shortest,
    Sima,
    Smallest,
    SpacyTagger,
    Span,
    StarAgents,
    TransformersModel,
    Tune,
    TunesiftError,
    Tuning,
    VisionDPO,
    VisionModel,
    Writing,
    run_recipe,
)
from tunesift.methods.mctune_taggers import _loaded
from tunesift.methods.optune_steps import Said, reward_of
from tunesift.methods.selectit import PROMPTS
from tunesift.records import Score
from tunesift.running.fsio import read_json
from tunesift.running.sealing import COMPLETE
from tunesift.scoring.screening import Screen
from tunesift.scoring.selectors import Pool, Scored
from tunesift.settings import incidental_fields

MakeTiny = Callable[..., Path]

# --- what there is to set --------------------------------------------------------------------------------------------


def settings_of(hint: Any) -> Iterator[type[Settings]]:  # Any: types as values
    """Every settings class that a type names, at any depth."""
    if isinstance(hint, type) and issubclass(hint, Settings):
        yield hint
        for inner in get_type_hints(hint).values():
            yield from settings_of(inner)
    for inner in get_args(hint):
        yield from settings_of(inner)


REACHABLE = sorted(set(settings_of(Recipe)), key=lambda found: found.__name__)
DECIDING = [
    f"{found.__name__}.{field.name}"
    for found in REACHABLE
    for field in dataclasses.fields(found)  # type: ignore[arg-type]
    if field.name not in {"kind", *incidental_fields(found)}
]
"""Every setting that a recipe can name and that decides a result; a `kind` is the name of its class."""

# --- what comes of them ----------------------------------------------------------------------------------------------

LONG = (
    "The river comes down from the hills in the north and turns once round the old town before it goes under the bridge "
    "where a grey heron stands on one leg all day and looks at the boats with coal and sand for the city by the sea."
)
SAID = [
    ("Name the sea.", "The sea is the Baltic Sea, and it is cold.", "water"),
    ("Add 2 and 2.", "4", "sums"),
    ("Name a lake near the town of Geneva.", "Lake Geneva is the lake near the town.", "water"),
    ("Write a line on rain.", "Grey threads stitch the street to the sky, all day, and nobody looks up.", "words"),
    ("Say hello.", "Hello there, and welcome.", "words"),
    ("Say hello!", "Hello there, and welcome!", "words"),
    ("Say hello to all.", "Hello there, and welcome, all of you who came from far away to this old house by the sea.", "words"),
    ("Mix blue and yellow.", "Green.", "sums"),
    ("Translate it.", "  ", "words"),
    ("What is a barge?", "A wide and slow boat that carries sand, coal and stones down the long river.", "water"),
    ("Describe what you see below the bridge.", LONG, "water"),
    ("Describe what you see below the bridge.", LONG.replace("heron", "stork"), "water"),
    ("Put what lies there, from end to end and back again, into words that everybody who never came by will know.", LONG,
     "words"),
]  # fmt: skip
DATA = Dataset.of([
    *(Record(f"r{n}", (Message("user", asked), Message("assistant", said)), {"topic": topic, "half": n % 2})
      for n, (asked, said, topic) in enumerate(SAID)),
    Record("turns", (Message("user", "Name a hill."), Message("assistant", "A hill by the sea."),
                     Message("user", "And another?"), Message("assistant", "The hill behind the old house.")), {"topic": "words"}),
])  # fmt: skip
S = ScriptedModel()
OTHER = ScriptedModel(chances={"": {SAID[0][1]: 0.01, SAID[0][0]: 0.01, "4": 0.5}}, otherwise="Something else.")


QUICK = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""A disk in memory: what is asked here is what a run makes, and not whether it lasts."""


def came_of(method: Any, data: Dataset[Record] = DATA) -> tuple[Any, Any, list[Any]]:  # Any: a method
    """Decisions, records and tables of a method, and the outcome of every item of every stage."""
    with TemporaryDirectory(dir=QUICK) as home:
        with Run(Path(home) / "run", Local(), max_failures=1.0) as run:
            result = method(data, run)
            made = [(r.id, r.messages if isinstance(r, Record) else r) for r in result.data or ()]
            run.finish(data, result.decisions)
        rows = [row for part in sorted(Path(home).rglob("*.parquet")) for row in pq.read_table(part).to_pylist()]
    return list(result.decisions), made, rows


def scores_of(scorer: Any) -> object:  # Any: a scorer
    return scorer(list(DATA))


def screened_by(screen: Screen) -> object:
    return came_of(Select(scorer=IFD(student=S), keep=Largest(fraction=0.4), screen=screen))


def kept_by(keep: Any) -> list[str]:  # Any: a selector
    """The actions alone: a reason may repeat a setting that decides nothing."""
    scored = {kind: dict(zip(DATA.ids(), scorer(list(DATA)), strict=True)) for kind, scorer in SCORERS.items()}
    named = {kind: Scored(scores, {}) for kind, scores in scored.items()}
    vectors = dict(zip(DATA.ids(), keep.embedder.embed([r.response for r in DATA]), strict=True)) if isinstance(keep, Diverse) else {}  # fmt: skip
    pool = Pool(DATA, scored["perplexity"], {}, "perplexity", random.Random(0), named, vectors)
    return [d.action for d in keep(pool)]


SCORERS: Mapping[str, Any] = {"ifd": IFD(student=S), "perplexity": Perplexity(student=S)}


def confident(keep: Confident) -> list[str]:
    scores = {id: Score(value) for id, value in zip(DATA.ids(), (0.9, 0.5, 0.5, 0.5, 0.5, 0.5, 0.1), strict=False)}
    return [d.action for d in keep(Pool(DATA, scores, {}, "confidence", random.Random(0)))]


@dataclass(frozen=True, kw_only=True)
class Teacher(ScriptedModel):
    """Writes what it was asked, and how, into new texts; where it hesitates, sometimes only when it is asked again."""

    hesitates: bool = False

    def chat(self, conversations: Sequence[Sequence[Message]], sampling: Sampling) -> list[Completion]:
        return [self._said(conversation, sampling) for conversation in conversations]

    def _said(self, asked: Sequence[Message], sampling: Sampling) -> Completion:
        which = hashlib.sha256(repr(list(asked)).encode()).hexdigest()[:8]
        if self.hesitates and sampling.seed == 0 and which < "8":
            return Completion("Let me think.", "stop", 3)
        how = f"{sampling.temperature} {sampling.max_tokens} {sampling.seed} {self.otherwise}"
        if "[Better Answer]" in asked[-1].text:
            said = asked[-1].text.partition("<given-instruction>\n")[2].partition("\n</given")[0]
            return Completion(f"[Better Answer] {said} {which} {how} [End]", "stop", 3)
        return Completion(f"[New Instruction] what of {which}? [End] [New Answer] it is so {how} [End]", "stop", 3)


@dataclass(frozen=True, kw_only=True)
class Talker(ScriptedModel):
    """Says how it was asked."""

    def chat(self, conversations: Sequence[Sequence[Message]], sampling: Sampling) -> list[Completion]:
        return [Completion(f"Answer: A, {sampling}", "stop", 1) for _ in conversations]


@dataclass(frozen=True, kw_only=True)
class Debater(ScriptedModel):
    """Argues by rule, and says how it was asked; its first statement is none where it hesitates, and all are nearly
    equal where they are to be alike."""

    hesitates: bool = False
    alike: bool = False

    def chat(self, conversations: Sequence[Sequence[Message]], sampling: Sampling) -> list[Completion]:
        how = f"{sampling.temperature} {sampling.max_tokens} {sampling.seed} {self.otherwise}"
        said = [debated(conversation[-1].text) for conversation in conversations]
        said = [f"{WHY} {text[-20:]}" if self.alike and text.startswith("A statement") else text for text in said]
        first = self.hesitates and sampling.seed == 0
        texts = ["" if first and text.startswith("A statement") else f"{text} {how}" for text in said]
        return [Completion(text, "stop", 3) for text in texts]


TOPICS = Dataset.of([Record(f"t{n}", (Message("user", f"Dams are {n}"),)) for n in ("good", "dear", "rare")])
WORDS = " ".join(f"word{n}" for n in range(30))
STATEMENTS = Dataset.of([
    Record(f"s{n}", (Message("user", "Argue."), Message("assistant", said)),
           {"topic": "Dams are good", "side": "affirmative", "argument": WORDS})
    for n, said in enumerate(("A short one.", f"{WORDS} {' '.join(f'own{n}' for n in range(40))}"))
])  # fmt: skip


def debates(method: Any) -> object:  # Any: a method over topics
    return came_of(method, TOPICS)


def debating(how: Debating) -> object:
    return debates(Debatune(teacher=Debater(hesitates=True), debating=how))


def judged(method: Any) -> object:  # Any: a method over statements
    return came_of(method, STATEMENTS)


TAGGER = ScriptedTagger(words={"river": "river NOUN", "hills": "hill NOUN", "comes": "come VERB"})
TUNED = MCTune(held_out=3, draws=2)
TEXTS = Dataset.of([
    *(Record(f"c{n}", (Message("user", "Say it."), Message("assistant", f"{LONG[: 30 * n]}." * (n % 3 + 1)))) for n in range(1, 9)),
    Record("code", (Message("user", "Say it."), Message("assistant", "Like this:\n```\nfor it\n```"))),
])  # fmt: skip


def controlled(method: Any) -> object:  # Any: a method over responses
    """The further output, too."""
    with TemporaryDirectory(dir=QUICK) as home, Run(Path(home) / "run", Local()) as run:
        result = method(TEXTS, run)
        return [[(r.id, r.messages, r.extra) for r in made] for made in (result.data, result.also["test"])]


def evaluated(method: Any) -> object:  # Any: a method over prompts with controls
    with TemporaryDirectory(dir=QUICK) as home, Run(Path(home) / "run", Local()) as run:
        prompts = TUNED(TEXTS, run).also["test"]
    try:
        return came_of(method, Dataset.of(prompts))
    except TunesiftError as error:
        return str(error)


def parroting(bounds: Parroting) -> object:
    return judged(Controllability(judge=Talker(), parroting=bounds))


def scoring(by: ByReward | ByRating) -> object:
    """What is said of an answer, and what is read of it."""
    (said,) = by([Said("a", (Message("user", "Why?"),), "It is so.")])
    return said, reward_of(by, said)  # type: ignore[arg-type]


JUDGE = ScriptedModel(otherwise="Answer: C the sea", replies={
    "Verdict: second\n</given-answer>": "Answer: A",
    "<given-answer>\nBETTER one\n</given-answer>\n\nWhat stands": "Verdict: second",
    "<given-answer>\nBETTER two\n</given-answer>\n\nWhat stands": "Verdict: second",
    "<given-answer>\nBETTER": "Verdict: first",
})  # fmt: skip
"""Sure that the better answer is better, wherever it stands."""
RATER = ScriptedModel(chances={
    "Score:\n": {"1": 0.5, "5": 0.2},
    "Write the number alone.\n\nTask: Name": {"1": 0.1, "2": 0.1, "4": 0.1, "5": 0.4},
    "Write the number alone.": {"1": 0.1, "3": 0.3, "5": 0.2},
    "Task: Name": {"2": 0.3, "4": 0.1},
    "": {"3": 0.2, "4": 0.3, "5": 0.1},
})  # fmt: skip
SELECTIT = SelectIT(raters=(Rater(model=RATER),))
CLEAR = Clear(student=ScriptedModel(otherwise="Answer: the sea A"), samples=2)
CORRECT = Correct(tuned=(ScriptedModel(otherwise="BETTER one"), ScriptedModel(otherwise="BETTER two")))
CHERRY = Cherry(student=S, pre_experience=PreExperience(clusters=2, per_cluster=2, tuner=None))
SELECTIVE = SelectiveReflection(teacher=Teacher(), student=S)


@dataclass(frozen=True, kw_only=True)
class Onlooker(ScriptedModel):
    """Says how it was asked, and finds the second response better, in brackets that not everybody reads."""

    def chat(self, conversations: Sequence[Sequence[Message]], sampling: Sampling) -> list[Completion]:
        return [self._said(conversation[-1].text, sampling) for conversation in conversations]

    def _said(self, text: str, sampling: Sampling) -> Completion:
        how = f"{len(text)} {sampling.temperature} {sampling.max_tokens} {sampling.top_p} {self.otherwise}"
        better = 1 if text.rfind(f" {sampling.temperature} ") < text.rfind(" 0.8 ") else 2
        return Completion(f"{how} [[ {better} ]]" if "<given-reference>" in text else how, "stop", 3)


def pictures() -> Dataset[Record]:
    return Dataset.of([pictured(f"p{n}", embedded((n, 0, 0)), f"What is it {'?' * n}") for n in range(3)])


def looked(method: Any) -> object:  # Any: a method over images
    return came_of(method, pictures())


@dataclass(frozen=True)
class Flip:
    """Settings, other values of some of their fields, and what is seen to come of them."""

    given: Settings
    seen: Callable[[Any], object]  # Any: settings of that class
    others: Mapping[str, object]


def flip(given: Settings, seen: Callable[[Any], object], /, **others: object) -> Flip:
    return Flip(given, seen, others)


def cherry(sample: PreExperience) -> object:
    return came_of(replace(CHERRY, pre_experience=sample))


def selectit(rater: Rater) -> object:
    return came_of(SelectIT(level="model", raters=(rater, Rater(model=S))))


def clear(correct: Correct) -> object:
    return came_of(Clear(student=JUDGE, samples=1, correct=correct))


def similar(measure: Any) -> object:  # Any: a similarity
    return measure.similar([("the sea is cold", "the sea is warm"), ("warm", "the cold sea")])


def asked(asking: Asking) -> object:
    teacher = Teacher(hesitates=asking.retries > 0)
    return came_of(Reflection(teacher=teacher, asking=asking))


def losses(model: Any) -> object:  # Any: a model that gives losses
    return model.loss([Span("Name the sea of the north, and say how cold it is.", " The Baltic Sea.")])


def place(model: Any) -> object:  # Any: a model that embeds
    return model.embed(["the sea is cold", "the cold sea"])


def identity(model: Any) -> object:  # Any: a model of the hub
    return model.identity()


@dataclass(frozen=True, kw_only=True)
class Author(ScriptedModel):
    """Writes lists and rows by the prompt and the seed; every third row without labels, every fifth the same answer."""

    def chat(self, conversations: Sequence[Sequence[Message]], sampling: Sampling) -> list[Completion]:
        return [self._said(conversation[-1].text, sampling) for conversation in conversations]

    def _said(self, text: str, sampling: Sampling) -> Completion:
        if sampling.seed % 3 == 0 and "nothing before or after" not in text:
            return Completion("Let me think.", "stop", 3)
        how = f" {sampling.temperature} {sampling.max_tokens} {self.otherwise}"
        found = generated(text, 0 if "nothing before or after" in text else sampling.seed)
        labels = re.findall(r"`(\w+):`", text)[:2]
        if labels and labels != ["Question", "Answer"] and labels[0] not in ("User", "Topic", "Subtopic"):
            found = found.replace("Question:", f"{labels[0]}:").replace("Answer:", f"{labels[1]}:")
        return Completion(found + ("" if "nothing before or after" in text else how), "stop", 3)


def generated_by(method: GenQA) -> object:
    """What a run of a page without data makes."""
    with TemporaryDirectory(dir=QUICK) as home:
        with Run(Path(home) / "run", Local(), max_failures=1.0) as run:
            result = method(Dataset.of([]), run)
            run.finish(None, result.decisions)
        made = [(r.id, r.messages, r.extra) for r in result.data or ()]
        return made, [row for part in sorted(Path(home).rglob("*.parquet")) for row in pq.read_table(part).to_pylist()]


def listing(lists: Lists) -> object:
    return generated_by(
        replace(GENQA, lists=lists, topics=("Tides",), variants=("generator-conditional", "generator-nested"))
    )


def labelled(labels: Labels) -> object:
    nested = replace(GENQA, labels=labels, mode="single-shot", variants=("generator-nested",))
    return generated_by(nested), generated_by(replace(GENQA, labels=labels, splits=("dialog",)))


@dataclass(frozen=True, kw_only=True)
class Scribe(Planted):
    """Writes by rule, and says how it was asked."""

    def said(self, conversation: Sequence[Message], sampling: Sampling) -> Completion:
        how = f"{sampling.temperature} {sampling.max_tokens} {len(conversation)} {self.otherwise}"
        found = super().said(conversation, sampling).text
        new = found.removesuffix(" [End]")
        return Completion(f"{new} {how} [End]" if new != found else f"{found} so the task is done. {how}", "stop", 9)


STARS = StarAgents(
    agents=tuple(Agent(name=n, model=Scribe(name=n, quality=q)) for n, q in {"base": None, **QUALITY}.items()),
    judge=Umpire(), small=Larger(share=0.9), large=Larger(share=0.6), round_size=2, draws=3, from_near=1,
)  # fmt: skip


def starring(agent: Agent) -> object:
    others = tuple(a for a in STARS.agents if a.name != "good")
    return came_of(replace(STARS, agents=(*others, agent), rewrite=True))


def writing(how: Writing) -> object:
    return came_of(replace(STARS, rewrite=True, writing=how))


GENQA = GenQA(model=Author(), count=12, boosters=("Be odd.",), variants=("generator-conditional",))

FLIPS = [
    flip(GENQA, generated_by, model=Author(otherwise="Else."), count=13, splits=("code",),
         variants=("generator-nested",), mode="single-shot", lists=Lists(subtopics=7), boosters=(), language="de",
         labels=Labels(question="Frage"), temperature=0.7, max_tokens=99, tries=0, round=5, measured=5, embedder=HashedNgrams(letters=2)),
    flip(replace(GENQA, splits=("academic", "code")), generated_by, balance=0.0),
    flip(replace(GENQA, model=Author(otherwise=" ".join(map(str, range(99))))), generated_by, near=0.7),
    flip(replace(GENQA, mode="single-shot"), generated_by, prompt="Write {what}. {form}"),
    flip(Lists(), listing, subtopics=7, topics=7, nested=7, reuse=1),
    flip(Labels(), labelled, question="Ask", answer="Say", user="Guest", assistant="Host", topic="Field", subtopic="Part"),
    flip(Select(scorer=IFD(student=S), keep=Largest(fraction=0.5)), came_of, scorer=Perplexity(student=S)),
    flip(Select(scorer=IFD(student=S)), came_of, keep=Largest(fraction=0.5), screen=Screen(student=OTHER, sample=1)),
    flip(Screen(student=OTHER, sample=1), screened_by, student=S, margin=0.5, sample=2),
    flip(
        Select(scorer=IFD(student=S), also=(ReversedIFD(student=S),), keep=Combined(weights={"reversed-ifd": -1})),
        came_of, also=(ReversedIFD(student=S, ratio="loss"),),
    ),
    flip(CHERRY, came_of, student=OTHER, pre_experience=None, profile="canonical", template="bare", ratio="perplexity",
         keep=Smallest(fraction=0.5)),
    flip(PreExperience(clusters=2, per_cluster=2, tuner=None), cherry, clusters=3, per_cluster=1, low=60.0, high=100.0),
    flip(SELECTIT, came_of, raters=(Rater(model=S),), level="token", prompts=PROMPTS[:2], ratings=4, cue="Score:\n",
         layout="record-first", alpha=0.8, min_mass=1.0, keep=Largest(fraction=0.5)),
    flip(Rater(model=RATER), selectit, model=S, parameters=7.0),
    flip(CLEAR, came_of, student=ScriptedModel(otherwise="Answer: B"), similarity=Embeddings(model=S), samples=1,
         w_similarity=0.1, w_consistency=0.1, max_tokens=2, keep=Largest(fraction=0.2), correct=CORRECT),
    flip(replace(CLEAR, student=Talker()), came_of, temperature=0.5),
    flip(Confident(), confident, fraction=0.2, rule="median", gamma=0.6),
    flip(CORRECT, clear, tuned=CORRECT.tuned[:1], threshold=1.0, scope="all", max_tokens=1, least_changed=1.0),
    flip(Embeddings(model=S), similar, model=HashedNgrams()),
    flip(Reflection(teacher=Teacher()), came_of, teacher=Teacher(otherwise="Else."), halves="response",
         asking=Asking(temperature=0.5)),
    flip(Asking(), asked, temperature=0.5, max_tokens=99, retries=0, retry_temperature=0.9, longest=5, multi_turn="last"),
    flip(SELECTIVE, came_of, teacher=Teacher(otherwise="Else."), student=OTHER, template="alpaca",
         question="Who would say: {response}?", flow="full", valid_only=False, cap_first=True, fraction=0.5,
         otherwise="original", asking=Asking(temperature=0.5)),
    flip(Debatune(teacher=Debater()), debates, teacher=Debater(otherwise="Else."), opponent=Debater(otherwise="Else."),
         arguments=2, rounds=1, sides="negative", target=4, make="prompts", deny=("rare",), held_out=("Dams are dear",),
         debating=Debating(temperature=0.5)),
    flip(Debatune(teacher=Debater(alike=True)), debates, near=None),
    flip(Debating(), debating, temperature=0.5, argument_tokens=99, turn_tokens=99, statement_tokens=99, retries=0),
    flip(Controllability(judge=Talker()), judged, judge=ScriptedModel(otherwise="100 0"), max_tokens=99,
         parroting=Parroting(least_own=0)),
    flip(TUNED, controlled, analyser=Analyser(tagger=TAGGER), most_controls=2, held_out=2, draws=1, sigma=2.0, layout="alpaca",
         code="measure"),
    flip(MCTuneEvaluate(model=Talker()), evaluated, model=ScriptedModel(otherwise="Yes."), analyser=Analyser(tagger=TAGGER),
         max_tokens=99),
    flip(Analyser(profile="pos", tagger=TAGGER), lambda a: (a(LONG), a.analyzer_id), profile="core", tagger=ScriptedTagger(),
         counting="compat"),
    flip(TAGGER, lambda tagger: tagger(LONG), words={"river": "river PROPN"}, otherwise="ADV"),
    flip(Parroting(), parroting, most_repeated=0.2, least_own=0),
    flip(STARS, came_of, agents=STARS.agents[:4], base=("fair",), pairs=("good", "weak", "poor"), rewrite=True,
         judge=ScriptedModel(otherwise="[[C]]"), small=Larger(share=0.8), large=Larger(share=0.7), embedder=S, draws=2, near=1,
         from_near=0, rate=0.1, floor=0.16, ratio="byte", scale="running", template="alpaca", round_size=3,
         judge_tokens=99, writing=Writing(temperature=0.5)),
    flip(replace(STARS, round_size=1), came_of, faithful=True),
    flip(Agent(name="good", model=Scribe(name="good", quality=0.9)), starring, name="better",
         model=Scribe(name="good", quality=0.1), writes="responses"),
    flip(Writing(), writing, temperature=0.5, instruction_tokens=99, response_tokens=99, hint=True),
    flip(ByReward(model=ScriptedModel()), scoring, model=ScriptedModel(favours=3)),
    flip(ByRating(model=ScriptedModel(otherwise="Rating: 7")), scoring, model=ScriptedModel(otherwise="Rating: 6"), most=5),
    flip(ByRating(model=Talker()), scoring, max_tokens=99),
    flip(ScriptedModel(), lambda m: m.reward([[Message("assistant", "the sea")]]), favours=3),
    flip(Sima(student=Onlooker(), tuner=None), looked, student=Onlooker(otherwise="Else."), judge=S, critic_orders="single",
         use_metrics=False, parser="official", temperature=0.5, top_p=0.5, answer_tokens=99, critic_tokens=99),
    flip(ScoreRecords(scorers=(IFD(student=S),)), came_of, scorers=(Perplexity(student=S),)),
    flip(IFD(student=S), scores_of, student=OTHER, profile="cherry", ratio="loss", template="alpaca", turns="each"),
    flip(ReversedIFD(student=S), scores_of, student=OTHER, ratio="loss", template="alpaca"),
    flip(DualIFD(small=S, large=Larger(share=0.8)), scores_of, small=Larger(share=0.8), large=Larger(share=0.2), ratio="loss",
         profile="cherry", template="alpaca"),
    flip(Perplexity(student=S), scores_of, student=OTHER, given="nothing", template="alpaca"),
    flip(Largest(fraction=0.2), kept_by, fraction=0.6, below=3.0, at_most=3.0),
    flip(Largest(fraction=0.5, below=5.0), kept_by, rule="cherry"),
    flip(Largest(fraction=None, count=2), kept_by, count=3),
    flip(Smallest(fraction=0.2), kept_by, fraction=0.6, below=1.5),
    flip(Smallest(fraction=None, count=2), kept_by, count=3),
    flip(Above(threshold=2.0), kept_by, threshold=4.0, below=5.0),
    flip(Quota(group="topic", fraction=0.4), kept_by, group="half", fraction=0.9, below=3.0),
    flip(Combined(weights={"ifd": 1, "length": 0.5}, fraction=0.4), kept_by, weights={"perplexity": 1},
         where=("length < 40",), fraction=0.8, group="topic"),
    flip(Combined(weights={"length": 1}, fraction=0.4), kept_by, length_bands=2),
    flip(Combined(weights={"perplexity": 1, "length": -1}, fraction=0.4), kept_by, rule="product"),
    flip(Combined(weights={"ifd": 1}, fraction=None, count=2), kept_by, count=3),
    flip(Diverse(fraction=0.3, candidates=0.8), kept_by, rule="k-centre", fraction=0.5, candidates=0.4, below=4.0,
         embedder=S),
    flip(Diverse(fraction=0.3, candidates=0.8, rule="clusters", clusters=2), kept_by, clusters=4),
    flip(Diverse(fraction=None, count=2), kept_by, count=1),
    flip(Distinct(), kept_by, rule="exact", similarity=1.0, words=9, of="response"),
    flip(Random(fraction=0.2), kept_by, fraction=0.6),
    flip(Random(fraction=None, count=2), kept_by, count=3),
    flip(Longest(fraction=0.2), kept_by, fraction=0.6),
    flip(Longest(fraction=None, count=2), kept_by, count=3),
    flip(Shortest(fraction=0.2), kept_by, fraction=0.6),
    flip(Shortest(fraction=None, count=2), kept_by, count=3),
    flip(HashedNgrams(), place, letters=2, width=64),
    flip(ScriptedModel(), lambda m: m.chat([[Message("user", "the sea")]], Sampling()), replies={"sea": "It is cold."},
         otherwise="Nothing."),
    flip(ScriptedModel(), losses, chances={"sea": {" The Baltic Sea.": 0.5}}),
    flip(TransformersModel(name="hub/model"), identity, revision="f00"),
    flip(VisionModel(name="hub/model"), identity, revision="f00"),
    flip(SentenceModel(name="hub/model"), identity, revision="f00"),
]  # fmt: skip
"""What needs no weights, no endpoint and no file; the fixtures below have the rest."""


@pytest.fixture(scope="module")
def with_weights(make_tiny: MakeTiny, tmp_path_factory: pytest.TempPathFactory) -> list[Flip]:
    """Tiny random models, made on the spot."""
    one, two = (str(make_tiny(seed=seed)) for seed in (0, 1))
    pytest.importorskip("sentence_transformers", reason='needs the "embed" extra')
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "sea", "is", "cold", "warm"]
    first, second = (NliModel(name=str(classifier(tmp_path_factory.mktemp("nli"), words, seed))) for seed in (0, 1))
    east, west = (str(encoder(tmp_path_factory.mktemp("encoder"), words, 10, seed)) for seed in (0, 1))
    return [
        flip(TransformersModel(name=one), losses, name=two, dtype="bfloat16", max_length=8),
        flip(first, lambda m: m.contradiction([("the sea is cold " * 5, "the sea is warm")]), name=second.name,
             max_length=8),
        flip(NoContradiction(model=first), similar, model=second),
        flip(SentenceModel(name=east), place, name=west),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def trained(make_tiny: MakeTiny) -> list[Flip]:
    """A tiny student, tuned in this process in two updates."""
    pytest.importorskip("trl", reason='needs the "train" extra')
    one, two = (make_tiny(seed=seed, layers=1) for seed in (0, 1))
    data = letters(6)
    base = SFT(template="alpaca", steps=2, batch=2, learning_rate=1e-2, gradient_checkpointing=False)

    pairs = Dataset.of(
        Preference(f"p{n}", (Message("user", f"Count to {n}."),), Message("assistant", "one two " * (1 + n % 3)),
                   Message("assistant", f"I count {n}."), extra={"weight": 0.5 * n}) for n in range(6)
    )  # fmt: skip
    better = DPO(template="alpaca", steps=2, batch=2, learning_rate=1e-2, gradient_checkpointing=False)

    def tuned(tuner: SFT | DPO, folder: Path = one, data: Dataset[Any] = data) -> object:
        """Losses, rates and order of the updates, and the weights by their digest; or why there are none."""
        with TemporaryDirectory(dir=QUICK) as home:
            try:
                found = here(Path(home), folder, tuner, data)
            except TunesiftError as error:
                return str(error).partition(":")[2]
            files = read_json(Path(home) / "model" / COMPLETE)["files"]
            weights = [said["sha256"] for name, said in files.items() if name.endswith(".safetensors")]
            return found.history, found.records, found.left_out, weights

    def adapted(lora: LoRA) -> object:
        return tuned(replace(base, lora=lora))

    def in_this_process(method: Tune | Cherry) -> Any:  # Any: as `came_of` has it
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                Tuning, "__call__", lambda asked, data, into, _: here(into, Path(asked.student.name), asked.tuner, data)
            )
            return came_of(method, data)

    def run(method: Tune) -> object:
        return in_this_process(method)[0], tuned(method.tuner, Path(method.student.name))

    def preferred(tuner: DPO) -> object:
        """The same of pairs."""
        return tuned(tuner, data=pairs)

    def warmed(sample: PreExperience) -> object:
        return in_this_process(Cherry(student=student, pre_experience=sample, keep=Largest(fraction=0.5)))

    student = TransformersModel(name=str(one))
    return [
        flip(base, tuned, template="bare", steps=3, batch=3, learning_rate=1e-3, warm_up=1.0,
             weight_decay=0.5, max_length=172, packing=True, lora=LoRA(), precision="bfloat16", held_out=0.5, seed=1),
        flip(replace(base, steps=None, epochs=1.0), tuned, epochs=2.0),
        flip(replace(base, steps=3, warm_up=0.0), tuned, schedule="linear"),
        flip(LoRA(), adapted, rank=8, alpha=64, dropout=0.5, targets=("q_proj",), merged=True),
        flip(better, preferred, template="bare", steps=3, batch=3, learning_rate=1e-3, warm_up=1.0, weight_decay=0.5,
             max_length=160, precision="bfloat16", held_out=0.5, seed=1, beta=0.5, optimiser="rmsprop",
             weighted=True, reference=TransformersModel(name=str(two))),
        flip(replace(better, lora=LoRA()), preferred, lora=LoRA(dropout=0.5)),  # TRL's own setting takes it away
        flip(replace(better, steps=None, epochs=1.0), preferred, epochs=2.0),
        flip(replace(better, steps=3, warm_up=0.0), preferred, schedule="linear"),
        flip(Tune(student=student, tuner=base), run, student=replace(student, name=str(two)), tuner=replace(base, steps=1)),
        flip(PreExperience(clusters=2, per_cluster=2, tuner=base), warmed, tuner=replace(base, steps=1)),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def with_a_policy(make_tiny: MakeTiny) -> list[Flip]:
    """Students that are tables of probabilities, beside a tokenizer that measures prompts."""
    one, two = (make_tiny(seed=seed, layers=1) for seed in (0, 1))
    for seed, folder in enumerate((one, two)):
        (folder / TABLE).write_text(json.dumps(drawn_table(seed, 12)))
    prompts = Dataset.of(Record(prompt, (*(Message("system", "Be brief.") for _ in range(n // 9)), Message("user", prompt)))
                         for n, prompt in enumerate(drawn_table(0, 12)))  # fmt: skip

    def rounds(method: OPTune) -> object:
        """Pairs, decisions, how was asked, and how was trained."""
        with (
            TemporaryDirectory(dir=QUICK) as home,
            simulated() as (said, tuned),
            Run(Path(home) / "run", Local()) as run,
        ):
            result = method(prompts, run)
            pairs = [[(p.id, p.chosen, p.rejected, p.extra) for p in made] for made in result.also.values()]
            return pairs, result.decisions, said, [asked.tuner for asked in tuned]

    by = ByReward(model=ScriptedModel(favours=8))
    method = OPTune(student=TransformersModel(name=str(one)), reward=by, ratio=0.4)
    return [
        flip(method, rounds, student=TransformersModel(name=str(two)), reward=replace(by, model=ScriptedModel(favours=3)),
             rounds=2, answers=3, ratio=0.2, rank_by="max", rank_centre="baseline", keep_old=True, max_age=1,
             weight="linear", beta2=2.0, normalise=False, min_gap=2.0, reference="previous", temperature=0.5, top_p=0.5,
             answer_tokens=99, prompt_tokens=30, tuner=DPO(beta=0.2)),
        flip(replace(method, rounds=5), rounds, patience=1),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def seeing(tmp_path_factory: pytest.TempPathFactory) -> list[Flip]:
    """Two tiny models that read images; one is tuned in this process in two updates."""
    pytest.importorskip("trl", reason='needs the "train" extra')
    one, two = (VisionModel(name=str(llava(tmp_path_factory.mktemp("llava"), seed)), device="cpu") for seed in (0, 1))
    base = VisionDPO(steps=2, batch=2, device_batch=2, learning_rate=1e-2, warm_up=0.0, gradient_checkpointing=False,
                     lora=None)  # fmt: skip
    data = Dataset.of([pair(f"p{n}", embedded((n, 0, 0)), rejected="A dog. " * (n + 1)) for n in range(4)])

    def said(model: VisionModel) -> object:
        drawn = Sampling(temperature=2.0, max_tokens=150)
        return model.chat([pictured("p", embedded((n, 9, 9))).prompt for n in range(8)], drawn)

    def tuned(tuner: VisionDPO) -> object:
        with TemporaryDirectory(dir=QUICK) as home:
            found = trained_to_see(job(Path(home) / "out", one, tuner, data))
            files = read_json(Path(home) / "out" / "model" / COMPLETE)["files"]
            weights = [said["sha256"] for name, said in files.items() if name.endswith(".safetensors")]
            return found.history, found.records, found.left_out, weights

    def run(method: Sima) -> object:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                Tuning,
                "__call__",
                lambda asked, data, into, _: trained_to_see(job(into, asked.student, asked.tuner, data)),
            )
            _, _, rows = came_of(method, pictures())
        return [row for row in rows if "step" in row]

    sima = Sima(
        student=one, judge=ScriptedModel(otherwise="[[1]]"), tuner=base, critic_orders="single", answer_tokens=4
    )
    return [
        flip(one, said, name=two.name, dtype="bfloat16", max_length=40),
        flip(base, tuned, steps=3, batch=3, learning_rate=1e-3, warm_up=1.0, weight_decay=0.5, max_length=55, beta=0.5,
             lora=LoRA(), precision="bfloat16", held_out=0.5, seed=1),
        flip(replace(base, steps=None, epochs=1.0), tuned, epochs=2.0),
        flip(replace(base, steps=3), tuned, schedule="linear"),
        flip(sima, run, tuner=replace(base, steps=1)),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def rewarded(make_tiny: MakeTiny, tmp_path_factory: pytest.TempPathFactory) -> list[Flip]:
    """A tiny student, whose body becomes a reward model in two updates in this process; and two reward models."""
    pytest.importorskip("trl", reason='needs the "train" extra')
    one, two = (make_tiny(seed=seed, layers=1, length=512) for seed in (0, 1))
    model, other = (RewardClassifier(name=str(rewarding(one, tmp_path_factory.mktemp("reward"), seed)), template="alpaca",
                                     device="cpu") for seed in (0, 1))  # fmt: skip
    pairs = preferences(13)
    base = RewardTuner(template="alpaca", steps=2, batch=8, device_batch=8, learning_rate=1e-2, held_out=0.0,
                       schedule="constant", gradient_checkpointing=False)  # fmt: skip

    def tuned(tuner: RewardTuner) -> object:
        """Losses of the updates and the weights by their digest; or why there are none."""
        with TemporaryDirectory(dir=QUICK) as home:
            try:
                found = here(Path(home), one, tuner, pairs)
            except TunesiftError as error:
                return str(error).partition(":")[2]
            files = read_json(Path(home) / "model" / COMPLETE)["files"]
            weights = [said["sha256"] for name, said in files.items() if name.endswith(".safetensors")]
            return found.history, found.records, found.left_out, weights

    def told(method: Odin) -> object:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                Tuning, "__call__", lambda asked, data, into, _: here(into, Path(asked.student.name), asked.tuner, data)
            )
            decisions, _, rows = came_of(method, pairs)  # type: ignore[misc, arg-type]  # pairs, and three things
        return decisions, [row for row in rows if "accuracy" in row]

    def rewards(asked: RewardClassifier) -> object:
        return asked.reward([(Message("user", "Name the sea."), Message("assistant", "The Baltic Sea."))])

    student = TransformersModel(name=str(one), device="cpu")
    watched = replace(base, held_out=0.3)
    return [
        flip(base, tuned, template="bare", steps=3, batch=6, learning_rate=1e-3, warm_up=1.0, weight_decay=0.5, max_length=170,
             precision="bfloat16", held_out=0.5, seed=1, heads=1, betas=(0.5, 0.9), lambda_length=0.5,
             lambda_orthogonal=0.0, total_corr_coef=1.0),
        flip(replace(base, lora=LoRA(merged=True)), tuned, lora=LoRA(dropout=0.5, merged=True)),  # the same
        flip(replace(base, steps=None, epochs=1.0), tuned, epochs=2.0),
        flip(replace(base, steps=3, warm_up=0.0), tuned, schedule="linear"),
        flip(replace(base, batch=8), tuned, device_batch=4),
        flip(replace(base, steps=2, batch=8), tuned, least_sequences=12),  # the second batch has 5 pairs
        flip(replace(base, total_corr_coef=0.0), lambda tuner: told(Odin(student=student, tuner=replace(tuner, held_out=0.3))),
             length_mode="sequence"),
        flip(replace(watched, steps=6), tuned, best_by="last"),
        flip(Odin(student=student, tuner=watched), told, student=replace(student, name=str(two)),
             tuner=replace(watched, heads=1), baseline=model),
        flip(model, rewards, name=other.name, dtype="bfloat16", template="bare", max_length=8),
        flip(RewardClassifier(name="a/b"), identity, revision="c0ffee"),
    ]  # fmt: skip


@pytest.fixture
def with_a_tagger(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Flip]]:
    """Two pipelines of a stand-in for spaCy."""
    pipelines = {"one": Pipeline({"river": "river NOUN"}), "two": Pipeline({"river": "river VERB"})}
    monkeypatch.setitem(sys.modules, "spacy", spacy_with(pipelines))
    _loaded.cache_clear()
    yield [flip(SpacyTagger(name="one"), lambda tagger: tagger(LONG), name="two")]
    _loaded.cache_clear()


@pytest.fixture
def at_an_endpoint(make: Make, ledger: Ledger, make_tiny: MakeTiny) -> list[Flip]:
    """A model behind the scripted server: its last requests, by the digests of their bytes, and what is read of them."""

    def sent(model: Any) -> object:  # Any: an HttpModel
        said = model.chat([[Message("user", "the sea")]], Sampling(temperature=1.0))
        chat = ledger.asked[-1].request
        return said, chat, losses(model), ledger.asked[-1].request

    return [flip(make(), sent, model="another", parameters={"top_p": 0.5}, tokenizer=str(make_tiny()), max_length=20)]


@pytest.fixture(scope="module")
def from_files(tmp_path_factory: pytest.TempPathFactory) -> list[Flip]:
    """Recipes over files with something in them that a setting decides about."""
    home = tmp_path_factory.mktemp("in")

    def over(rows: Sequence[Mapping[str, object]], **settings: Any) -> Recipe:
        path = home / f"{len(list(home.iterdir()))}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        method = Select(keep=Random(fraction=0.5))
        return Recipe(**({"method": method, "input": path, "output": home / "out.jsonl"} | settings))

    alpaca = [{"instruction": asked, "output": said} for asked, said, _ in SAID if said.strip()]
    both = [{"prompt": "Say it.", "completion": "It. " * (99 - len(row["output"]) // 4), **row} for row in alpaca]
    talk = [
        {"role": "user", "content": "Hello."},
        {"role": "user", "content": "Hello?"},
        {"role": "assistant", "content": "Yes."},
    ]
    cut = home / "cut.jsonl.gz"
    whole = gzip.compress("".join(json.dumps(row) + "\n" for row in alpaca * 50).encode(), mtime=0)
    cut.write_bytes(whole[: len(whole) // 2])
    return [
        flip(over(alpaca), written, method=Select(keep=Longest(fraction=0.5)), limit=4, seed=1),
        flip(over(both, method=Select(keep=Longest(fraction=0.5))), written, format="prompt-completion"),
        flip(over([{"id": "a", **row} for row in alpaca]), written, duplicate_ids="first"),
        flip(over([{"instruction": "", "output": "It."}, *alpaca]), written, empty="accept"),
        flip(over([{"messages": talk}, {"messages": talk[1:]}]), written, turns="accept"),
        flip(over(alpaca, input=cut), written, truncated="accept"),
    ]  # fmt: skip


def written(recipe: Recipe) -> object:
    """What a recipe writes, and its balance; or why it writes nothing."""
    with TemporaryDirectory(dir=QUICK) as home:
        output = Path(home) / "out.jsonl"
        try:
            counts = run_recipe(replace(recipe, output=output)).counts
        except TunesiftError as error:
            return str(error)
        return counts, output.read_text()


SEEN: dict[int, tuple[Flip, object]] = {}
"""What came of the settings of a line, by its address; the line itself, so that no other gets it."""


def came_before(found: Flip) -> object:
    """What comes of the settings as they are, the same each time."""
    if id(found) not in SEEN:
        SEEN[id(found)] = found, found.seen(found.given)
        assert found.seen(found.given) == SEEN[id(found)][1], "what is seen is not the same twice"
    return SEEN[id(found)][1]


def line_of(flips: Sequence[Flip], name: str) -> Flip:
    owner, _, field = name.partition(".")
    found = [f for f in flips if type(f.given).__name__ == owner and field in f.others]
    assert len(found) == 1, f"{name}: has {len(found)} lines in the table; flip it once, or mark it INCIDENTAL"
    return found[0]


WHERE = {
    "TransformersModel": "with_weights",
    "SentenceModel": "with_weights",
    "NliModel": "with_weights",
    "NoContradiction": "with_weights",
    "SpacyTagger": "with_a_tagger",
    "VisionModel": "seeing",
    "VisionDPO": "seeing",
    "Sima.tuner": "seeing",
    "SFT": "trained",
    "DPO": "trained",
    "OPTune": "with_a_policy",
    "LoRA": "trained",
    "RewardTuner": "rewarded",
    "RewardClassifier": "rewarded",
    "Odin": "rewarded",
    "Tune": "trained",
    "PreExperience.tuner": "trained",
    "HttpModel": "at_an_endpoint",
    "Recipe": "from_files",
}
"""Where the lines of a class, or of one of its fields, stand that need more than a name."""


@pytest.mark.parametrize("name", DECIDING)
def test_a_setting_changes_what_comes_of_it(name: str, request: pytest.FixtureRequest) -> None:
    owner, _, field = name.partition(".")
    place = WHERE.get(name, WHERE.get(owner))
    more = request.getfixturevalue(place) if place else []
    found = line_of([*FLIPS, *more], name)
    other: Any = replace(found.given, **{field: found.others[field]})  # type: ignore[type-var]
    assert found.seen(other) != came_before(found)


def test_no_line_of_the_table_is_about_what_is_no_setting() -> None:
    named = {f"{type(f.given).__name__}.{field}" for f in FLIPS for field in f.others}
    assert named <= set(DECIDING)
    assert len(DECIDING) > 120
