"""What a run needs is looked for before anything is paid, and what a model is not made for is said."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from faultserver.client import FaultServer
from harness.seeing import asked, rows
from tunesift import (
    IFD,
    Dataset,
    HttpModel,
    Message,
    MissingExtra,
    ModelUnavailable,
    Random,
    RecipeError,
    Record,
    Select,
    SelectIT,
    TransformersModel,
    recipe_for,
    run_recipe,
)
from tunesift.console import told
from tunesift.errors import shown
from tunesift.methods.selectit import Rater
from tunesift.models.folders import context_of, is_here
from tunesift.planning import plan
from tunesift.readiness import doubts, tokens_read
from tunesift.recipe import recipe_named
from tunesift.records import rule_of
from tunesift.telling import told_plan

GONE = "meta-llama/Llama-2-7b-hf"
ENGLISH = "The sea is blue because water takes the red out of the light that goes through it."
GERMAN = "Das Meer ist blau, weil das Wasser dem Licht, das hindurchgeht, die roten Anteile nimmt."
CHINESE = "海是蓝色的，因为水会吸收穿过它的光线中的红色部分。"


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    """A file of twelve records, one of them without a response."""
    rows = [{"instruction": f"Question {n}?", "output": f"{ENGLISH} {n}" if n else " "} for n in range(12)]
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def no_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's store on this machine, which is empty."""
    constants = pytest.importorskip("huggingface_hub.constants", reason='needs the "local" extra')
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "store"))
    return tmp_path / "store"


def of(*responses: str) -> Dataset[Record]:
    return Dataset.of(
        [Record(str(n), (Message("user", "?"), Message("assistant", r))) for n, r in enumerate(responses)]
    )


def test_a_student_that_is_not_here_is_missed_before_the_teacher_is_paid(
    lines: Path, tmp_path: Path, server: FaultServer, no_store: Path
) -> None:
    output = tmp_path / "out.jsonl"
    words = [f"input={lines}", f"output={output}", f"teacher.url={server.url}", "teacher.model=toy"]
    recipe = recipe_named("refine-wizardlm", words)
    with pytest.raises(ModelUnavailable) as refusal:
        run_recipe(recipe)
    assert str(refusal.value) == (
        f'student: model "{GONE}" is no folder here, and no copy from a hub is on this machine; write '
        f"student.name=FOLDER, or fetch it with hf download {GONE}."
    )
    assert server.lines() == [], "not even a small request"
    assert not recipe.run_folder.exists()
    assert plan(recipe).missing == (f"student: {GONE}",)
    assert f"  student: {GONE} is in no folder here" in told_plan(recipe, as_json=False).splitlines()


def test_every_local_model_is_named_by_its_place_in_the_recipe(lines: Path, tmp_path: Path, no_store: Path) -> None:
    student = ["student.kind=scripted", 'correct.tuned=[{"kind": "transformers", "name": "me/tuned"}]']
    nli = ["similarity.kind=nli", "similarity.model.name=me/nli"]
    recipe = recipe_for("clear-correct", lines, tmp_path / "out.jsonl", [*student, *nli])
    assert plan(recipe).missing == ("similarity.model: me/nli", "correct.tuned.0: me/tuned")
    with pytest.raises(
        ModelUnavailable, match=r'similarity\.model: model "me/nli".+\n.*write correct\.tuned\.0\.name='
    ):
        run_recipe(recipe)
    tokenizer = HttpModel(url="http://localhost:9/v1", model="x", tokenizer="me/tokenizer")
    http = recipe_for("select", lines, tmp_path / "out.jsonl", [])
    found = plan(type(http)(input=lines, output=Path("out.jsonl"), method=Select(scorer=IFD(student=tokenizer))))
    assert found.missing == ("scorer.student.tokenizer: me/tokenizer",)


def test_a_folder_that_is_no_models_is_said_to_be_where_it_is_named(lines: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder, said in (("empty", "is a folder without config.json; give a model's folder."),
                         ("gone", "is not there; give a folder with config.json or a hub id.")):  # fmt: skip
        name = str(tmp_path / folder)
        with pytest.raises(ModelUnavailable) as refusal:
            run_recipe(recipe_for("select", lines, tmp_path / "out.jsonl", [f"scorer.student.name={name}"]))
        assert str(refusal.value) == f'scorer.student: model "{shown(name)}" {said}'


def test_a_student_that_a_selector_does_without_may_be_missing(
    lines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    words = ["scorer.student.name=me/gone", "keep.kind=random", "keep.fraction=0.5"]
    assert run_recipe(recipe_for("select", lines, tmp_path / "out.jsonl", words)).counts["kept"] == 6
    with pytest.raises(MissingExtra, match='local models: needs the "local" extra'):
        run_recipe(recipe_for("select", lines, tmp_path / "other.jsonl", ["keep=50%"]))
    assert doubts(Select(keep=Random()), of(*[CHINESE] * 9)) == {}


def test_adapters_need_an_extra_that_is_missed_before_anything_is_scored(
    lines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "adapters").mkdir()
    (tmp_path / "adapters/adapter_config.json").write_text('{"base_model_name_or_path": "embedded"}')
    monkeypatch.setitem(sys.modules, "peft", None)
    words = [f"scorer.student.name={tmp_path / 'adapters'}", "keep=50%"]
    recipe = recipe_for("select", lines, tmp_path / "out.jsonl", words)
    with pytest.raises(MissingExtra, match='a model of adapters: needs the "train" extra'):
        run_recipe(recipe)
    assert not recipe.run_folder.exists()


def test_a_folder_that_is_not_there_fails_no_plan(lines: Path) -> None:
    found = plan(recipe_for("select", lines, Path("out.jsonl"), ["scorer.student.name=./nowhere"]))
    assert (found.missing, found.seconds) == (("scorer.student: ./nowhere",), None)


def test_what_the_hubs_store_on_this_machine_has_is_here(no_store: Path) -> None:
    copy = no_store / "models--me--tiny"
    for place, text in {"refs/main": "abc", "snapshots/abc/config.json": "{}"}.items():
        (copy / place).parent.mkdir(parents=True, exist_ok=True)
        (copy / place).write_text(text)
    assert is_here("me/tiny")
    assert not is_here("me/tiny", "another-commit")
    assert not is_here("me/other")
    assert not is_here("no id at all")
    assert is_here("embedded")


@pytest.mark.parametrize(("words", "said"), [
    ([], "teacher: is not given; write teacher.url=http://localhost:8000/v1 teacher.model=NAME."),
    (["teacher.model=x"], "teacher.url: is not given; write teacher.url=http://localhost:8000/v1."),
])  # fmt: skip
@pytest.mark.parametrize("method", ["reflection", "selective-reflection"])
def test_a_teacher_that_nobody_has_named_is_not_made_up_and_what_is_missing_is_said(
    lines: Path, tmp_path: Path, method: str, words: list[str], said: str
) -> None:
    recipe = recipe_for(method, lines, tmp_path / "out.jsonl", words)
    for ask in (run_recipe, plan):
        with pytest.raises(RecipeError) as refusal:
            ask(recipe)
        assert str(refusal.value) == said
    assert not recipe.run_folder.exists()


def test_a_scorer_that_does_not_chat_is_not_asked_to(lines: Path, tmp_path: Path) -> None:
    recipe = recipe_for("clear", lines, tmp_path / "out.jsonl")
    for ask in (run_recipe, plan):
        with pytest.raises(RecipeError) as refusal:
            ask(recipe)
        assert str(refusal.value) == (
            "student: the scorer that comes with the package does not chat; write student.name=FOLDER, or "
            "student.kind=http student.url=URL student.model=NAME."
        )
    with pytest.raises(RecipeError, match=r"\Astudent: the scorer .+\ncorrect\.tuned\.0: is not given; write"):
        plan(recipe_for("clear-correct", lines, tmp_path / "out.jsonl"))
    both = ["student.kind=scripted", 'correct.tuned=[{"kind": "transformers"}]']
    with pytest.raises(RecipeError, match=r"\Acorrect\.tuned\.0: the scorer that comes with the package does not chat"):
        plan(recipe_for("clear-correct", lines, tmp_path / "out.jsonl", both))


def test_what_the_embedded_scorer_is_not_made_for_is_noted() -> None:
    data = of(*[ENGLISH] * 3)
    assert doubts(SelectIT(raters=(Rater(model=TransformersModel()),)), data) == {
        "records are rated by the scorer that comes with the package, which is not made for ratings": 3
    }
    teacher = ["teacher.url=http://localhost:9/v1", "teacher.model=x"]
    judged = recipe_for("selective-reflection", Path("in.jsonl"), Path("out.jsonl"), teacher)
    assert [said.partition(" by")[0] for said in doubts(judged.method, data)] == ["records are judged"]
    assert doubts(SelectIT(raters=(Rater(model=TransformersModel(name="me/rater")),)), data) == {}


@pytest.mark.parametrize(
    ("responses", "foreign"),
    [
        ([ENGLISH] * 18 + [GERMAN, CHINESE], 0),
        ([ENGLISH] * 17 + [GERMAN, CHINESE, GERMAN], 3),
        ([CHINESE] * 1_100, 1_000),
    ],
)
def test_records_in_another_language_than_the_scorers_are_noted(responses: Sequence[str], foreign: int) -> None:
    data = of(*responses)
    first = f"{min(len(data), 1_000):,}"
    said = {f"of the first {first} records are not in English, for which this scorer is not made": foreign}
    assert doubts(Select(), data) == (said if foreign else {})
    assert doubts(Select(scorer=IFD(student=TransformersModel(name="me/own"))), data) == {}


def test_a_summary_says_in_words_why_records_have_no_score(lines: Path, tmp_path: Path) -> None:
    done = run_recipe(recipe_for("select", lines, tmp_path / "out.jsonl", ["scorer.student.kind=scripted", "keep=50%"]))
    assert done.reasons["dropped: no score: the response is empty"] == 1
    assert "  1  dropped: no score: the response is empty" in told(done)


def test_a_reason_is_counted_with_the_words_of_its_note() -> None:
    long = "no score: prompt_too_long"
    assert rule_of(long, 1_024) == "no score: longer than the scorer's 1,024 tokens"
    assert (
        rule_of("no score: reversed-ifd prompt_too_long") == "no score: reversed-ifd longer than the scorer's context"
    )
    assert rule_of("no score: not a finite number") == "no score: not a finite number"
    assert rule_of("largest 10%: IFD 0.5, rank 1 of 2: or so", 7) == "largest 10%"


def test_how_many_tokens_are_read_is_known_from_the_models_file_and_the_reading() -> None:
    recipes = {"select": [], "cherry": [], "superfiltering": ["scorer.student.name=embedded"], "selectit": []}
    found = {
        name: tokens_read(recipe_for(name, Path("i.jsonl"), Path("o.jsonl"), words).method)
        for name, words in recipes.items()
    }
    assert found == {"select": 1_024, "cherry": 512, "superfiltering": 1_024, "selectit": 1_024}
    assert tokens_read(Select(scorer=IFD(student=TransformersModel(max_length=100)))) == 100
    assert tokens_read(Select(scorer=IFD(student=TransformersModel(name="me/own")))) is None
    assert context_of("me/own") is None


def test_an_extra_that_is_not_installed_is_missed_before_anything_is_scored(
    lines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    recipe = recipe_for("cherry", lines, tmp_path / "out.jsonl", ["student.kind=scripted", "pre_experience.tuner=null"])
    with pytest.raises(MissingExtra, match='the pre-experience sample: needs the "cluster" extra') as refusal:
        run_recipe(recipe)
    assert refusal.value.exit_code == 69
    assert not recipe.run_folder.exists()


def test_a_page_of_images_misses_pillow_whoever_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in.jsonl").write_text(rows([asked("a", "0.png")]))
    monkeypatch.setitem(sys.modules, "PIL", None)
    answers = f"student={json.dumps({'kind': 'scripted', 'otherwise': 'A dog.'})}"
    recipe = recipe_for("sima", tmp_path / "in.jsonl", tmp_path / "pairs.jsonl", ["tuner=null", answers])
    with pytest.raises(MissingExtra, match='a model that reads images: needs the "vision" extra'):
        run_recipe(recipe)
    assert not recipe.run_folder.exists()
