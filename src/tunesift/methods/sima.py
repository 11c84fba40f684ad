"""SIMA: a model that reads images compares its own answers with references, and is tuned on what it prefers.

Paper    Wang et al., arXiv:2405.15973
Needs    rows of an image, a question and a reference answer; a vision-language model whose weights are here, and
         images that nobody will test it with (COCO's validation images are behind CHAIR)
Changes  nothing; the output is the tuned model's folder, and beside it the preference pairs; with tuner=null the pairs

Stages   look     every image is opened as the model will see it; asks nobody
         greedy   the student answers, the likeliest token each time
         sampled  and once more, drawn at a temperature of 0.8
         compare  which of the two agrees better with the reference? By the student itself, in both orders
         tune     direct preference optimisation with the image in the prompt, in a process of its own

The paper is silent on
    Two answers that are the same but for white space: they are no pair.
    A reply without a verdict: its pair is dropped, and above a fifth of all replies nothing is trained.
    Several turns or images, a system message, tools: such rows are left out.
    Images that cannot be used: one row may be lost, of more than a hundred a hundredth; then nobody is asked.
We differ from the authors' code
    Both orders are asked, and a pair is kept where both name one answer; theirs always has the sampled one first.
    Replies are read otherwise, see `parser`; ids, not splits of the prompt, say what belongs together.
    White space folds to one space; theirs removes line feeds, which joins words.
    Images are not padded to squares: the model's own processor does what it was made for.
    The projector is trained where all weights are, and not beside adapters; theirs is, at a rate of its own, 2e-5.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from tunesift.datasets import Dataset
from tunesift.errors import DataError, ModelRefused, RecipeError, TunesiftError, shown
from tunesift.inputs import home_of_input
from tunesift.methods.refining import check_refinable
from tunesift.methods.sima_images import LookAtImages, check_broken, sighted
from tunesift.methods.sima_judging import (
    ORDERS,
    Answer,
    Compare,
    Order,
    Parser,
    Settled,
    Source,
    answer_in,
    compared,
    comparison_id,
    left_out,
    names_told,
    pair_figures,
    pair_of,
    seen_from,
    verdict_of,
    verdict_rows,
)
from tunesift.methods.sima_prompts import comparison
from tunesift.methods.training_told import LOSS_OF_PAIRS, curve, told_row
from tunesift.models import VisionChatModel, name_of
from tunesift.models.base import Completion, Sampling
from tunesift.models.vision import VisionModel
from tunesift.records import Decision, Failure, Preference, Record
from tunesift.running.result import Planned, Result
from tunesift.running.run import OUTPUT, Run
from tunesift.running.step import Outcomes
from tunesift.settings import Settings
from tunesift.tuning.process import Tuning, told
from tunesift.tuning.vision_dpo import VisionDPO

MOST_UNPARSED = 0.2
"""Share of replies without a verdict above which nothing is trained; our choice."""
UNPARSED = "replies that name neither answer; their pairs are not made"
LEFT_OUT = "pairs that were not trained on"


@dataclass(frozen=True, kw_only=True)
class Sima(Settings):
    """SIMA: have a model that reads images compare its own answers with references, and tune it on what it prefers."""

    kind: Literal["sima"] = "sima"
    student: VisionChatModel = VisionModel()
    """The model that answers and is tuned; an endpoint can answer, and then tuner=null."""
    judge: VisionChatModel | None = None
    """Who compares; None for the student itself, as published."""
    tuner: VisionDPO | None = VisionDPO()
    """How it is tuned; None makes the pairs alone, which are then the output."""
    critic_orders: Literal["both", "single"] = "both"
    """both: each comparison is made twice, with the answers exchanged, and counts where both name one answer; single:
    once, the sampled answer first, as published."""
    use_metrics: bool = True
    """Tell who compares the three visual criteria: objects, relations, attributes."""
    parser: Parser = "ours"
    """ours: the last double brackets of a reply that hold a 1 or a 2, perhaps behind words; official: as the authors'
    code splits it, which takes a bare 1 for a verdict, and `[[ 1 ]]` for none."""
    temperature: float = 0.8
    """Of the sampled answer; the paper's best of 0.2 to 0.8."""
    top_p: float = 0.9
    """Share of the probability of the likeliest tokens among which the sampled answer's are drawn; the authors' 0.9."""
    answer_tokens: int = 1024
    """Most tokens of an answer; the authors' 1,024."""
    critic_tokens: int = 512
    """Most tokens of a comparison; the authors' 4,096 let small models ramble."""

    chats: ClassVar[tuple[str, ...]] = ("student", "judge")
    """Models that must be able to chat."""

    def __post_init__(self) -> None:
        for name, tokens, usual in (("answer_tokens", self.answer_tokens, 1024),
                                    ("critic_tokens", self.critic_tokens, 512)):  # fmt: skip
            if tokens < 1:
                raise RecipeError(f"{name}: {tokens} is no answer; write {usual}.")
        if not 0 < self.temperature <= 2:
            raise RecipeError(f"temperature: {self.temperature:g} is not above 0 to 2; write 0.8.")
        if not 0 < self.top_p <= 1:
            raise RecipeError(f"top_p: {self.top_p:g} is no share; write a number above 0 to 1.")
        if self.tuner is not None and not isinstance(self.student, VisionModel):
            raise RecipeError(f"student: a model of kind {self.student.kind} has no weights here to be tuned; write "
                              "student.kind=vision student.name=FOLDER, or tuner=null for the pairs.")  # fmt: skip

    @property
    def makes(self) -> Literal["model", "records"]:
        """A model's folder, or a file of pairs."""
        return "records" if self.tuner is None else "model"

    @property
    def writes_also(self) -> tuple[str, ...]:
        """What is written besides the output."""
        return () if self.tuner is None else ("pairs",)

    def __call__(self, data: Dataset[Record], run: Run) -> Result:
        """Look, answer twice, compare, settle, tune."""
        check_refinable(data, instructions=False)
        folder = Path() if data.source is None else home_of_input(Path(data.source.path))
        became = {record.id: Decision(record.id, "drop", why) for record in data if (why := left_out(record))}
        asked = data.only({id for id in data.ids() if id not in became})
        _check_some(len(asked), len(data), became)
        student = seen_from(self.student, folder)
        place = getattr(student, "images", None) or folder
        check_broken(data.source, {}, len(asked), run.max_failures)
        asked = run.dataset("seen", sighted(asked, place))
        seen = run.map("look", LookAtImages(images=place), asked)
        check_broken(data.source, seen.failures(), len(asked), run.max_failures)
        usable = asked.only(seen.good())
        greedy = run.map("greedy", Answer(model=student, sampling=Sampling(max_tokens=self.answer_tokens)), usable)
        drawn = Sampling(temperature=self.temperature, top_p=self.top_p, max_tokens=self.answer_tokens)
        sampled = run.map("sampled", Answer(model=student, sampling=drawn), usable)
        became |= {id: _failed(id, why) for stage in (seen, greedy, sampled) for id, why in stage.failures().items()}
        answers = {id: _answers(greedy, sampled, id) for id in usable.ids() if id not in became}
        became |= {id: Decision(id, "drop", why) for id, both in answers.items() if (why := _no_choice(both))}
        open_ = usable.only({id for id in answers if id not in became})
        compare = Compare(model=seen_from(self.judge or self.student, place), use_metrics=self.use_metrics,
                       sampling=Sampling(max_tokens=self.critic_tokens))  # fmt: skip
        said = run.map("compare", compare, [compared(r, answers[r.id], order) for r in open_ for order in self._orders])
        became |= {id: _failed(id, why) for id in open_.ids() for why in self._failures(said, id)[:1]}
        settled = {id: self._settled(said, id) for id in open_.ids() if id not in became}
        became |= {
            id: Decision(id, "drop" if one.chosen is None else "keep", one.reason) for id, one in settled.items()
        }
        made = OUTPUT if self.tuner is None else "pairs"
        pairs = run.dataset(made, self._pairs(open_.only(settled), answers, settled, said))
        run.table("verdicts", verdict_rows(list(settled.values())))
        run.table("pairs", [pair_figures(list(settled.values()), pairs)])
        return self._result(run, student, pairs, settled, [became[id] for id in data.ids()])

    def plan(self, records: int) -> list[Planned]:
        """Two answers for a row, and a comparison in each order; then every pair is read in every epoch."""
        student, judge = name_of(self.student), name_of(self.judge or self.student)
        around = len(comparison("", "", ("", ""), self.use_metrics).encode())
        planned = [
            Planned("look", records, 0, ""),
            Planned("greedy", records, 1, student, answer=self.answer_tokens),
            Planned("sampled", records, 1, student, answer=self.answer_tokens),
            Planned("compare", records * len(self._orders), 1, judge, around=around, answer=self.critic_tokens),
        ]
        if self.tuner is not None:
            planned.append(Planned("tune", records, self.tuner.passes(records), student))
        return planned

    @property
    def _orders(self) -> tuple[Order, ...]:
        return tuple(ORDERS) if self.critic_orders == "both" else ("sampled-first",)

    def _said(self, said: Outcomes[Completion], id: str) -> dict[Order, Completion | Failure]:
        return {order: said[comparison_id(id, order)] for order in self._orders}

    def _failures(self, said: Outcomes[Completion], id: str) -> list[Failure]:
        return [reply for reply in self._said(said, id).values() if isinstance(reply, Failure)]

    def _texts(self, said: Outcomes[Completion], id: str) -> dict[Order, str]:
        return {order: reply.text for order, reply in self._said(said, id).items() if not isinstance(reply, Failure)}

    def _settled(self, said: Outcomes[Completion], id: str) -> Settled:
        return Settled({order: verdict_of(text, self.parser) for order, text in self._texts(said, id).items()})

    def _pairs(
        self, data: Dataset[Record], answers: Mapping[str, Mapping[Source, str]], settled: Mapping[str, Settled],
        said: Outcomes[Completion],
    ) -> Iterator[Preference]:  # fmt: skip
        names = names_told(data)
        for record in data:
            texts = self._texts(said, record.id)
            if (pair := pair_of(record, answers[record.id], settled[record.id], texts, names)) is not None:
                yield pair

    def _result(
        self, run: Run, student: VisionChatModel, pairs: Dataset[Preference], settled: Mapping[str, Settled],
        decisions: Sequence[Decision],
    ) -> Result:  # fmt: skip
        verdicts = [verdict for one in settled.values() for verdict in one.verdicts.values()]
        unparsed = verdicts.count(None)
        notes = {UNPARSED: unparsed} if unparsed else {}
        if self.tuner is None:
            return Result(pairs, decisions, format="preference", notes=notes)
        assert isinstance(student, VisionModel)  # or there would be no tuner
        if (refused := self._refused(run, pairs, verdicts, decisions)) is not None:
            return Result(None, decisions, notes=notes, refused=refused)
        made = run.once("tune", Tuning(student=student, tuner=self.tuner), pairs)
        trained = told(made)
        run.chart("loss", curve(trained), LOSS_OF_PAIRS)
        run.table("training", [told_row(trained, "pairs")])
        notes |= {f"{LEFT_OUT}: {why}": count for why, count in trained.left_out.items()}
        return Result(None, decisions, format="preference", notes=notes, checkpoint=made, also={"pairs": pairs})

    def _refused(
        self, run: Run, pairs: Dataset[Preference], verdicts: Sequence[int | None], decisions: Sequence[Decision]
    ) -> TunesiftError | None:
        """Why nothing is trained, which the report says too; None where something is."""
        unparsed, report = verdicts.count(None), run.folder / "report.html"
        if unparsed > MOST_UNPARSED * len(verdicts):
            why = (f"{name_of(self.judge or self.student)}: {unparsed} of {len(verdicts)} comparisons have no [[1]] or "
                   "[[2]], more than a fifth, so that nothing is trained")  # fmt: skip
            hint = f"look at {report}, give another judge, or write tuner=null for the pairs"
            found: TunesiftError | None = ModelRefused(f"{why}; {hint}.")
        elif not len(pairs):
            why = f"no pair can be trained on, of {len(decisions)} rows ({_commonest(decisions)})"
            found = DataError(f"{why}; look at {report}, and give more rows, or another judge.")
        else:
            return None
        run.table("doubts", [{"doubt": f"{why}."}])
        return found


def _check_some(asked: int, rows: int, dropped: Mapping[str, Decision]) -> None:
    if not asked:
        raise DataError(f"no row of {rows} can be asked about ({_commonest(list(dropped.values()))}); give rows of an "
                        "image, a question and an answer, such as messages with an images column.")  # fmt: skip


def _commonest(decisions: Sequence[Decision]) -> str:
    reasons = [decision.reason.partition(":")[0] for decision in decisions]
    found = max(dict.fromkeys(reasons), key=reasons.count, default="")
    return f"{reasons.count(found)} times: {shown(found)}"


def _failed(id: str, why: Failure) -> Decision:
    return Decision(id, "quarantine", f"{why.kind}: {why.message}")


def _answers(greedy: Outcomes[Completion], sampled: Outcomes[Completion], id: str) -> dict[Source, str]:
    return {"greedy": answer_in(greedy.good()[id]), "sampled": answer_in(sampled.good()[id])}


def _no_choice(answers: Mapping[Source, str]) -> str:
    """Why there is nothing to choose between; empty where there is."""
    if not all(answers.values()):
        return "an answer is empty"
    return "same answers" if len({" ".join(text.split()) for text in answers.values()}) == 1 else ""
