"""A recipe: read, overridden, checked; and what its JSON schema says."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from tunesift import (
    IFD,
    Above,
    Agent,
    Cherry,
    Diverse,
    DualIFD,
    HashedNgrams,
    HttpModel,
    Largest,
    Quota,
    Random,
    Recipe,
    RecipeError,
    ReversedIFD,
    ScoreRecords,
    ScriptedModel,
    Select,
    Smallest,
    StarAgents,
    TransformersModel,
    load_recipe,
    recipe_for,
)
from tunesift.overriding import override
from tunesift.recipe import as_json, check, schema, vetted
from tunesift.spelling import command

INPUT, OUTPUT = Path("a.jsonl"), Path("b.jsonl")


def method(*settings: str, of: str = "select") -> object:
    return recipe_for(of, INPUT, OUTPUT, settings).method


def refused(*settings: str, of: str = "select") -> list[str]:
    with pytest.raises(RecipeError) as caught:
        recipe_for(of, INPUT, OUTPUT, settings)
    assert str(caught.value) == "\n".join(caught.value.args)
    return list(caught.value.args)


@pytest.mark.parametrize(
    "setting",
    [
        "keep=5%",
        "keep=5.0 %",
        "keep=0.05",
        "keep=.05",
        "keep=5e-2",
        "keep.fraction=5%",
        "keep.fraction=0.05",
        "method.keep=5%",
    ],
)
def test_a_fraction_is_written_as_one_likes(setting: str) -> None:
    assert method(setting) == Select(keep=Largest(fraction=0.05, below=1.0))


def test_the_shorthand_keeps_what_stands_beside_it() -> None:
    assert method("keep=1") == Select(keep=Largest(fraction=1.0, below=1.0))
    assert method("keep=5%", of="cherry") == Cherry(keep=Largest(fraction=0.05, at_most=1.0, rule="cherry"))
    assert (
        method("keep=5%", "keep.kind=random")
        == method("keep.kind=random", "keep=5%")
        == Select(keep=Random(fraction=0.05))
    )


def test_a_count_takes_the_place_of_the_fraction_and_back() -> None:
    assert method("keep.count=7") == Select(keep=Largest(fraction=None, count=7, below=1.0))
    assert method("keep.kind=random", "keep.count=7") == Select(keep=Random(fraction=None, count=7))
    assert override({"keep": {"kind": "random", "count": 7}}, ["keep=5%"]) == {
        "keep": {"kind": "random", "fraction": 0.05}
    }
    assert refused("keep.count=7", "keep=5%") == ["keep: give either a fraction or a count, and set the other to null."]


def test_a_count_of_rows_to_make_stands_for_no_fraction() -> None:
    made = recipe_for("genqa", None, OUTPUT, ["count=7", "model.model=x"]).method
    assert getattr(made, "count", None) == 7


def test_a_new_kind_drops_the_settings_of_the_old_one() -> None:
    assert method("keep.kind=above", "keep.threshold=0.5") == Select(keep=Above(threshold=0.5))
    assert method("keep.kind=quota", "keep.group=category", "keep=20%") == Select(
        keep=Quota(group="category", fraction=0.2)
    )
    assert method("scorer.kind=reversed-ifd", "keep.kind=smallest") == Select(scorer=ReversedIFD(), keep=Smallest())
    student = "scorer.student"
    assert method(f"{student}.kind=scripted", "scorer.kind=reversed-ifd") == Select(
        scorer=ReversedIFD(student=ScriptedModel()), keep=Largest(fraction=0.1, below=1.0)
    )
    assert method("scorer.kind=ifd") == method(), "the kind that it is changes nothing"


def test_a_further_entry_of_a_list_has_models_of_the_kinds_of_the_one_before_unless_it_says_otherwise() -> None:
    agents = ["agents.0.model.url=http://a/v1", "agents.0.model.model=a", "agents.1.model.url=http://b/v1",
              "agents.1.model.model=b", "judge.url=http://a/v1", "judge.model=a", "small.name=s", "large.name=l"]  # fmt: skip
    third = method(
        *agents, "agents.2.name=c", "agents.2.model.url=http://c/v1", "agents.2.model.model=c", of="star-agents"
    )
    assert isinstance(third, StarAgents)
    assert third.agents[2] == Agent(name="c", model=HttpModel(url="http://c/v1", model="c"))
    local = method(*agents, "agents.2.name=c", "agents.2.model.kind=transformers", "agents.2.model.name=phi",
                   of="star-agents")  # fmt: skip
    assert isinstance(local, StarAgents)
    assert local.agents[2] == Agent(name="c", model=TransformersModel(name="phi"))


def test_settings_reach_into_what_a_new_kind_brings_with_it() -> None:
    dual = ["scorer.kind=dual-ifd", "scorer.large.name=big"]
    chosen = Select(scorer=DualIFD(large=TransformersModel(name="big")), keep=Largest(fraction=0.1, below=1.0))
    assert method(*dual) == method(*reversed(dual)) == chosen
    assert method("scorers.0.kind=dual-ifd", "scorers.0.large.name=big", of="score") == ScoreRecords(
        scorers=(DualIFD(large=TransformersModel(name="big")),)
    )
    assert method("keep.kind=diverse", "keep.embedder.letters=4", "keep.count=3") == Select(
        keep=Diverse(fraction=None, count=3, embedder=HashedNgrams(letters=4))
    )
    assert refused("scorer.kind=dual-ifd", "scorer.lareg=3") == [
        "method.scorer.lareg: there is no such setting; did you mean large?"
    ]


def test_a_word_for_a_group_of_settings_is_its_kind() -> None:
    assert method("scorer=reversed-ifd", "scorer.student.kind=scripted") == method(
        "scorer.kind=reversed-ifd", "scorer.student.kind=scripted"
    )
    assert method("scorers.0=reversed-ifd", of="score") == ScoreRecords(scorers=(ReversedIFD(),))
    assert method("scorer=dual-ifd", "scorer.large.name=x") == method("scorer.kind=dual-ifd", "scorer.large.name=x")


def test_settings_reach_into_lists() -> None:
    assert method("scorers.0.student.kind=scripted", of="score") == ScoreRecords(
        scorers=(IFD(student=ScriptedModel()),)
    )
    assert method("scorers.0.kind=reversed-ifd", of="score") == ScoreRecords(scorers=(ReversedIFD(),))
    both = "scorers=[{kind: ifd, student: {kind: scripted}}, {kind: reversed-ifd, student: {kind: scripted}}]"
    assert method(both, of="score") == ScoreRecords(
        scorers=(IFD(student=ScriptedModel()), ReversedIFD(student=ScriptedModel()))
    )
    assert method("scorers.0.student.kind=scripted", "scorers.1={kind: reversed-ifd, student: {kind: scripted}}",
                  of="score") == method(both, of="score")  # fmt: skip
    assert "method.scorers" in refused("scorers.2.kind=perplexity", of="score")[0]
    twice = "scorers=[{kind: ifd}, {kind: ifd, ratio: loss}]"
    assert refused(twice, of="score") == ["scorers: there are two scorers of the kind 'ifd'; name each kind once."]
    assert refused("scorers=[]", of="score") == ["scorers: there is none; name at least one."]
    assert refused("scorers.0.studnet=1", of="score") == [
        "method.scorers.0.studnet: there is no such setting; did you mean student?"
    ]


@pytest.mark.parametrize("name", ["1234", "1.5", "true", "null", "0x10", "2024-01-01", "1e5", "a=b", "012", "no"])
def test_a_text_that_looks_like_something_else_stays_a_text(name: str) -> None:
    chosen = method(f"scorer.student.name={name}")
    assert chosen == Select(scorer=IFD(student=TransformersModel(name=name)), keep=Largest(fraction=0.1, below=1.0))


def test_paths_may_look_like_numbers_too() -> None:
    recipe = recipe_for("select", Path("1"), Path("2"), ["folder=3"])
    assert (recipe.input, recipe.output, recipe.folder, recipe.run_folder) == (
        Path("1"),
        Path("2"),
        Path("3"),
        Path("3"),
    )
    assert recipe_for("select", INPUT, OUTPUT).run_folder == Path("b.jsonl.run")


def test_settings_of_the_run_need_no_prefix() -> None:
    recipe = recipe_for(
        "select", INPUT, OUTPUT, ["seed=3", "format=alpaca", "limit=5", "max_bad=10%", "execution.chunk=8"]
    )
    assert (recipe.seed, recipe.format, recipe.limit, recipe.max_bad, recipe.execution.chunk) == (
        3,
        "alpaca",
        5,
        0.1,
        8,
    )


def test_a_recipe_file_takes_overrides_by_their_full_path(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("input: a.jsonl\noutput: b.jsonl\nmethod: {kind: select}\nseed: 1\n")
    assert load_recipe(path) == Recipe(method=Select(), input=INPUT, output=OUTPUT, seed=1)
    changed = load_recipe(
        path, ["method.keep.fraction=0.05", "seed=2", "output=c.json", "method.scorer.profile=cherry"]
    )
    assert changed == Recipe(
        method=Select(scorer=IFD(profile="cherry"), keep=Largest(fraction=0.05, below=1.0)),
        input=INPUT,
        output=Path("c.json"),
        seed=2,
    )
    assert load_recipe(path, ["method.keep=5%"]) == load_recipe(path, ["method.keep.fraction=0.05"])
    with pytest.raises(RecipeError, match="keep: there is no such setting"):
        load_recipe(path, ["keep=5%"])


def test_everything_that_is_wrong_is_reported_together() -> None:
    wrong = ["seed=x", "kep=5%", "scorer.profile=best", "scorer.student.dtype=int8", "keep.below=high", "limit=many"]
    found = refused(*wrong)
    assert sorted(line.partition(":")[0] for line in found) == [
        "limit", "method.keep.below", "method.kep", "method.scorer.profile", "method.scorer.student.dtype", "seed",
    ]  # fmt: skip


def test_what_settings_say_of_a_field_has_its_whole_path() -> None:
    """A model does not know which of several it is."""
    assert refused("student.max_length=0", of="odin") == [
        "student.max_length: 0 is not 1 or more; write 2048, or null."
    ]
    baseline = ("baseline.kind=reward", "baseline.name=a", "baseline.batch_tokens=-2")
    assert refused(*baseline, of="odin") == ["baseline.batch_tokens: -2 is not 1 or more; write 4096."]
    assert refused("teacher.timeout_s=0.0", of="reflection") == ["teacher.timeout_s: 0 must be above 0."]
    assert refused("tuner.lora.rank=0", of="odin") == ["tuner.lora.rank: 0 is not 1 or more; write 16."]
    unasked = ("baseline.kind=reward", "baseline.name=a", "tuner.held_out=0.0")
    assert refused(*unasked, of="odin")[0].startswith("baseline: is asked for held-out pairs")  # of the method itself


def test_types_are_strict() -> None:
    for setting in ("seed=1.0", "seed=true", "limit=5.5", "keep.below=[1]", "max_bad=x", "scorer.turns=1"):
        assert len(refused(setting)) == 1


def test_a_vetted_recipe_may_be_asked_for_by_any_of_its_names() -> None:
    assert recipe_for("superfiltering", INPUT, OUTPUT).method == Select(
        scorer=IFD(student=TransformersModel(name="gpt2", max_length=1024), profile="superfilter"),
        keep=Largest(fraction=0.1, below=1.0),
    )
    with pytest.raises(
        RecipeError,
        match="there is no method cherri; use one of cherry, clear, clear-correct, combined, controllability, debatune, genqa, mctune, mctune-evaluate, odin, optune, perplexity",
    ):
        vetted("cherri")
    with pytest.raises(RecipeError, match="there is no method"):
        vetted("../recipes/select")


COMMANDS = {
    "nothing": ("select", []),
    "values": ("select", ["keep=5%", "seed=4", "scorer.turns=each", "scorer.student.name=a b's/ü.#: x", "limit=7"]),
    "a count": ("select", ["keep.count=5", "scorer.student.kind=scripted", "scorer.student.otherwise=😀"]),
    "two models": ("select", ["scorer.kind=dual-ifd", "scorer.large.name=big", "scorer.small.max_length=9"]),
    "kinds": ("select", ["scorer.kind=reversed-ifd", "keep.kind=quota", "keep.group=x", "scorer.student.kind=scripted"]),
    "required": ("select", ["keep.kind=above", "keep.threshold=0.00001"]),
    "none": ("cherry", ["pre_experience=null", "student.max_length=99"]),
    "inside": ("cherry", ["pre_experience.clusters=7"]),
    "lists": ("score", ["scorers.0.student.kind=scripted"]),
}  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_a_recipe_comes_back_from_json_and_from_its_command(name: str) -> None:
    of, settings = COMMANDS[name]
    recipe = recipe_for(of, INPUT, OUTPUT, settings)
    assert check(json.loads(json.dumps(as_json(recipe)))) == recipe
    words = shlex.split(command(recipe))
    assert words[:5] == ["tunesift", of, "a.jsonl", "-o", "b.jsonl"]
    assert len(words[5:]) <= len(settings) + 1
    assert recipe_for(words[1], Path(words[2]), Path(words[4]), words[5:]) == recipe


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("toy", "teacher.model=toy"),
        ("meta/llama 3", "'teacher.model=meta/llama 3'"),
        ("7", "'teacher.model=\"7\"'"),
        ("10%", "'teacher.model=\"10%\"'"),
        ("null", "'teacher.model=\"null\"'"),
        ("a: b", "'teacher.model=\"a: b\"'"),
        ('"a"', '\'teacher.model="\\"a\\""\''),
        ("a\nb #c", None),
    ],
)
def test_a_command_quotes_a_text_only_where_it_would_be_read_as_something_else(name: str, said: str | None) -> None:
    written = f"teacher.model={json.dumps(name)}"
    recipe = recipe_for("reflection", Path("a.json"), Path("b.json"), ["teacher.url=http://localhost:1/v1", written])
    found = command(recipe)
    assert found.startswith("tunesift reflection a.json -o b.json teacher.url=http://localhost:1/v1 ")
    assert said is None or found.endswith(f" {said}")
    assert recipe_for("reflection", Path("a.json"), Path("b.json"), shlex.split(found)[5:]) == recipe


def test_overriding_changes_nothing_of_what_was_given() -> None:
    given = vetted("select")
    before = json.dumps(given)
    override(given, ["method.keep=5%", "method.scorer.student.kind=scripted", "seed=1"])
    assert json.dumps(given) == before


def test_the_json_schema_is_sound_and_says_what_every_setting_means() -> None:
    found = json.loads(json.dumps(schema()))
    assert {"input", "output", "method", "seed"} <= set(found["properties"])
    assert found["properties"]["max_bad"]["description"].startswith("Fraction of the first 1,000 rows")
    for name, definition in found["$defs"].items():
        for setting, field in definition["properties"].items():
            assert setting == "kind" or field.get("description"), f"{name}.{setting} says nothing"
    undescribed = [name for name, field in found["properties"].items() if not field.get("description")]
    assert not undescribed
    assert all(ref.rpartition("/")[2] in found["$defs"] for ref in references(found))


def references(value: object) -> list[str]:
    """Every `$ref` inside a JSON schema."""
    if isinstance(value, dict):
        return [*([value["$ref"]] if "$ref" in value else []), *(r for v in value.values() for r in references(v))]
    return [r for v in value for r in references(v)] if isinstance(value, list) else []
