"""What a user would miss of the pages that choose: each test here failed on a change of a page that no other noticed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tunesift import (
    IFD,
    SFT,
    Agent,
    Cherry,
    Clear,
    Combined,
    Controllability,
    Correct,
    Dataset,
    Decision,
    Diverse,
    Embeddings,
    Failure,
    Largest,
    Local,
    Message,
    Parroting,
    PreExperience,
    Random,
    Rater,
    RecipeError,
    Record,
    Run,
    Score,
    ScoreRecords,
    ScriptedModel,
    Select,
    SelectIT,
    Span,
    StarAgents,
    TargetLoss,
    TransformersModel,
    Tuning,
)
from tunesift.methods.cherry import PromptLoss, sample
from tunesift.methods.controllability_figures import repeated
from tunesift.methods.selectit import Rated, Ratings, Settle
from tunesift.methods.star_agents_telling import Provenance
from tunesift.running.result import Planned
from tunesift.running.step import Checkpoint


def record(id: str, instruction: str, response: str) -> Record:
    return Record(id, (Message("user", instruction), Message("assistant", response)))


FIVE = [
    record("sea", "Name the sea.", "The Baltic Sea."),
    record("sum", "Add 2 and 2.", "2 and 2 make 4."),
    record("rain", "Write about rain.", "Grey threads fall."),
    record("empty", "Translate it.", "  "),
    record("tides", "Explain tides.", "The moon pulls the water."),
]
MODEL = ScriptedModel()


def cherry(**given: Any) -> Cherry:  # Any: settings
    return Cherry(**{"student": MODEL, "pre_experience": None, **given})


def selectit(**given: Any) -> SelectIT:  # Any: settings
    evenly = ScriptedModel(
        chances={key: {"1": one, "2": 1 - one} for key, one in (("sea", 0.1), ("Add", 0.3), ("", 0.2))}
    )
    return SelectIT(**{"raters": (Rater(model=evenly),), "ratings": 2, "prompts": ("1 to {ratings}",), **given})


def clear(**given: Any) -> Clear:  # Any: settings
    return Clear(**{"student": ScriptedModel(otherwise="Answer: A"), "samples": 0, **given})


def select(**given: Any) -> Select:  # Any: settings
    return Select(**{"scorer": IFD(student=MODEL), **given})


METHODS = {"ifd": cherry, "selectit": selectit, "clear": clear}
"""By the name of the score that a selector may ask for."""


def done(method: Any, folder: Path, records: Sequence[Record] = FIVE) -> list[Decision]:  # Any: a method
    data = Dataset.of(records)
    with Run(folder, Local(), max_failures=1.0) as run:
        return list(method(data, run).decisions)


def ids_kept(decisions: Sequence[Decision]) -> list[str]:
    return [d.record_id for d in decisions if d.action == "keep"]


def reasons(decisions: Sequence[Decision]) -> dict[str, str]:
    return {d.record_id: d.reason for d in decisions}


@pytest.mark.parametrize("name", METHODS)
def test_a_selector_of_another_score_is_refused_with_the_name_of_the_one_there_is(name: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as refusal:
        done(METHODS[name](keep=Combined(weights={"reward": 1.0})), tmp_path)
    assert str(refusal.value) == f"keep: no scorer of this run is of the kind 'reward'; there are {name}, length."


@pytest.mark.parametrize("name", METHODS)
def test_a_selector_of_several_scores_finds_that_of_the_method_and_why_one_is_missing(
    name: str, tmp_path: Path
) -> None:
    result = done(METHODS[name](keep=Combined(weights={name: 1.0}, fraction=None, count=2)), tmp_path)
    assert len(ids_kept(result)) == 2
    assert reasons(result)["empty"] == f"no score: {name} empty_response"


@pytest.mark.parametrize("name", METHODS)
def test_random_records_are_the_same_ones_for_every_method(name: str, tmp_path: Path) -> None:
    many = [record(f"r{n}", f"Add {n}.", f"It is {n}.") for n in range(24)]
    found = [
        ids_kept(done(make(keep=Random(fraction=0.5)), tmp_path / make.__name__, many))
        for make in (METHODS[name], select)
    ]
    assert found[0] == found[1]
    assert len(found[0]) == 12


@pytest.mark.parametrize("name", METHODS)
def test_a_selector_that_embeds_candidates_can(name: str, tmp_path: Path) -> None:
    few = Diverse(embedder=MODEL, count=2, fraction=None, candidates=0.8)
    assert len(ids_kept(done(METHODS[name](keep=few), tmp_path))) == 2


def test_a_plan_of_clear_says_what_its_selector_embeds() -> None:
    few = Diverse(embedder=TransformersModel(name="encoder"), candidates=0.5)
    assert Planned("embed-candidates", 50, 1, "encoder") in clear(keep=few).plan(100)


def test_a_plan_of_clear_has_a_round_for_every_tuned_model() -> None:
    tuned = tuple(TransformersModel(name=name) for name in ("first", "second"))
    planned = clear(correct=Correct(tuned=tuned)).plan(10)
    assert [(p.stage, p.model) for p in planned if p.stage.startswith("propose")] == [
        ("propose-1", "first"), ("propose-2", "second"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("profile", "ratio", "value"),
    [
        ("cherry", "loss", "0.5000"), ("cherry", "perplexity", "0.3679"),
        ("canonical", "loss", "0.5000"), ("canonical", "perplexity", "0.3679"),
    ],
)  # fmt: skip
def test_the_ratio_is_the_one_that_is_asked_for_in_either_profile(
    profile: str, ratio: str, value: str, tmp_path: Path
) -> None:
    """A response of 1 nat after its instruction and 2 alone: 1/2, and exp(1 - 2)."""
    student = ScriptedModel(chances={"Name": {"Baltic": math.exp(-1)}, "": {"Baltic": math.exp(-2)}})
    one = cherry(student=student, profile=profile, ratio=ratio, keep=Largest(fraction=1.0))
    result = done(one, tmp_path, [record("sea", "Name the sea.", "Baltic")])
    assert reasons(result) == {"sea": f"largest 100%: IFD {value}, rank 1 of 1"}


LADDER = [record(f"{n} nats", "x" * n, "So it is.") for n in (1, 2, 3, 4, 5)]
TUNER = SFT(epochs=3.0, batch=2, template="alpaca")


class Asked:
    """Stands in for local weights and their training: who was asked, and what was trained on."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.scoring: list[TransformersModel] = []
        self.trained: list[tuple[str, Tuning, list[str]]] = []
        patch.setattr(TransformersModel, "embed", lambda _, texts: MODEL.embed(texts))
        patch.setattr(TransformersModel, "loss", lambda model, spans: self._loss(model, spans))
        patch.setattr(Run, "once", lambda _, *given: self._once(*given))

    def _loss(self, model: TransformersModel, spans: Sequence[Span]) -> list[TargetLoss]:
        if any(span.context for span in spans):
            self.scoring.append(model)
        return [TargetLoss((float(span.target.count("x")),), False) for span in spans]

    def _once(self, stage: str, tuning: Tuning, data: Dataset[Record]) -> Checkpoint:
        self.trained.append((stage, tuning, list(data.ids())))
        return Checkpoint(Path("there"), "abc")


def test_the_student_is_tuned_on_the_sample_and_the_tuned_one_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of five losses of 1 to 5 nats in one cluster, those between the quarters are 2 to 4."""
    pytest.importorskip("sklearn", reason='needs the "cluster" extra')
    asked, student = Asked(monkeypatch), TransformersModel(name="embedded", max_length=77)
    middle = PreExperience(clusters=1, per_cluster=3, tuner=TUNER)
    monkeypatch.setattr("tunesift.tuning.process.weights_of", lambda folder: f"weights in {folder}")
    done(cherry(student=student, pre_experience=middle, keep=Random(fraction=1.0)), tmp_path, LADDER)
    assert asked.trained == [("warm-up", Tuning(student=student, tuner=TUNER), ["2 nats", "3 nats", "4 nats"])]
    assert {(m.name, m.location, m.max_length) for m in asked.scoring} == {("tuned:abc:weights in there", "there", 77)}


def test_a_plan_of_so_many_steps_says_how_often_the_sample_is_read() -> None:
    """100 updates of 8 read 4 records 200 times: three passes each time, and one for activations computed again."""
    tuner = SFT(steps=100, batch=8, gradient_checkpointing=True)
    method = cherry(student=TransformersModel(), pre_experience=PreExperience(clusters=2, per_cluster=2, tuner=tuner))
    assert [p.forwards for p in method.plan(50) if p.stage == "warm-up"] == [800]


def test_the_clusters_are_the_best_of_ten_starts_with_a_fixed_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("sklearn", reason='needs the "cluster" extra')
    asked: list[dict[str, Any]] = []  # Any: whatever scikit-learn takes

    class Means:
        def __init__(self, clusters: int, **given: Any) -> None:  # Any: as above
            asked.append({"clusters": clusters, **given})

        def fit_predict(self, vectors: Any) -> list[int]:  # Any: an array
            return [0] * len(vectors)

    monkeypatch.setattr("sklearn.cluster.KMeans", Means)
    done(cherry(pre_experience=PreExperience(clusters=3, tuner=None), keep=Random(fraction=1.0)), tmp_path)
    assert asked == [{"clusters": 3, "random_state": 0, "n_init": 10}]


class Forgetful(ScriptedModel):
    """Has no memory for tides."""

    def loss(self, spans: Sequence[Span]) -> list[TargetLoss | Failure]:
        gone = Failure("too-long", "999 tokens")
        return [gone if "tides" in s.target + str(s.context) else TargetLoss((0.5,), False) for s in spans]


def test_an_instruction_whose_loss_failed_is_a_failure_and_not_in_the_sample(tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason='needs the "cluster" extra')
    assert PromptLoss(student=Forgetful())(FIVE[3:]) == [Score(0.5), Failure("too-long", "999 tokens")]
    every = PreExperience(clusters=1, per_cluster=9, tuner=None)
    losses = {id: Score(0.5) for id in ("sea", "sum", "rain")}
    vectors = {id: (1.0, 2.0) for id in ("sum", "rain", "tides")}
    assert [row["id"] for row in sample(Dataset.of(FIVE), vectors, losses, every)] == ["sum", "rain"]


def test_an_instruction_without_any_loss_has_a_perplexity_of_one() -> None:
    pytest.importorskip("sklearn", reason='needs the "cluster" extra')
    (row,) = sample(Dataset.of(FIVE), {"sea": (1.0,)}, {"sea": Score(0.0)}, PreExperience(tuner=None))
    assert row["perplexity"] == 1.0


def test_ratings_of_just_the_least_mass_are_not_flagged() -> None:
    rated = Rated("x", (Ratings(((0.25, 0.25),)),))
    (at,) = Settle(alpha=0.2, parameters=(1.0,), min_mass=0.5)([rated])
    (above,) = Settle(alpha=0.2, parameters=(1.0,), min_mass=0.51)([rated])
    assert isinstance(at, Score)
    assert isinstance(above, Score)
    assert (at.note, above.note) == ("", "low_rating_mass")


class Placed(ScriptedModel):
    """Embeds a text as the numbers that it writes."""

    def embed(self, texts: Sequence[str]) -> list[tuple[float, ...]]:
        return [tuple(float(x) for x in text.split()) for text in texts]


@pytest.mark.parametrize(
    ("a", "b", "cosine"),
    [
        ("0.5 0", "0.25 0", 1.0), ("0.5 0", "0 0.5", 0.0), ("3 4", "4 3", 0.96), ("1 0", "-1 0", 0.0),
        ("0.1 0.6", "0.1 0.6", 1.0),  # 1.0000000000000002 before it is held to 1
    ],
)  # fmt: skip
def test_short_embeddings_have_a_direction_and_no_two_are_more_alike_than_equal_ones(
    a: str, b: str, cosine: float
) -> None:
    assert Embeddings(model=Placed()).similar([(a, b)]) == [cosine]


@pytest.mark.parametrize(
    ("scorers", "sentence"),
    [
        ((), "scorers: there is none; name at least one."),
        ((IFD(), IFD()), "scorers: there are two scorers of the kind 'ifd'; name each kind once."),
    ],
)
def test_scorers_that_mean_nothing_are_refused(scorers: tuple[IFD, ...], sentence: str) -> None:
    with pytest.raises(RecipeError) as refusal:
        ScoreRecords(scorers=scorers)
    assert str(refusal.value) == sentence


def test_a_record_that_a_scorer_failed_on_is_kept_with_that_said(tmp_path: Path) -> None:
    result = done(ScoreRecords(scorers=(IFD(student=Forgetful()),)), tmp_path)
    assert reasons(result) == {
        **dict.fromkeys(("sea", "sum", "rain", "empty"), "scored: all scorers"),
        "tides": "scored: ifd too-long: 999 tokens",
    }


@pytest.mark.parametrize(
    ("statement", "repeats"), [("river flood", False), ("river river", True), ("", True), ("dams flood ships", False)]
)
def test_a_statement_repeats_where_more_than_half_of_its_words_are_given_ones(statement: str, repeats: bool) -> None:
    assert Parroting(most_repeated=0.5, least_own=0)(statement, "river", "dams") is repeats


def test_an_empty_statement_is_all_repeated() -> None:
    assert repeated("", "river", "dams") == 1.0


def test_the_words_of_the_topic_count_as_repeated_too(tmp_path: Path) -> None:
    given = {"topic": "Rivers need dams", "side": "affirmative", "argument": "water"}
    said = [Message("user", "Argue."), Message("assistant", "Rivers need dams today")]
    judge = Controllability(judge=ScriptedModel(otherwise="100 0"), parroting=Parroting(least_own=0))
    assert reasons(done(judge, tmp_path, [Record("a", tuple(said), given)])) == {"a": "not Good: parroted"}


def test_a_plan_of_star_agents_has_the_calls_of_every_agent_apart() -> None:
    """Of 30 seeds each has an answer of the base and one of an agent that is drawn, each of three as often."""
    agents = tuple(Agent(name=name, model=ScriptedModel()) for name in ("one", "two", "three"))
    method = StarAgents(agents=agents, judge=MODEL, small=MODEL, large=MODEL, draws=1, from_near=0)
    assert [(p.stage, p.items) for p in method.plan(30) if p.stage.startswith("respond")] == [
        ("respond-one", 40), ("respond-two", 10), ("respond-three", 10),
    ]  # fmt: skip


def test_beside_a_seed_that_was_left_alone_stands_why() -> None:
    assert Provenance([], {"x": "uses tools"})["x"] == {"star-agents": Score(None, note="left alone (uses tools)")}
