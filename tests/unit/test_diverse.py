"""Few that stand for all, near-duplicates, and the embeddings that stand in for a sentence encoder."""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesift import (
    Dataset,
    Distinct,
    Diverse,
    HashedNgrams,
    Local,
    Message,
    MissingExtra,
    Pool,
    RecipeError,
    Record,
    Run,
    Score,
    ScriptedModel,
    Select,
    SentenceModel,
    recipe_for,
    run_recipe,
)
from tunesift.scoring.diverse import EmbedText
from tunesift.scoring.duplicates import jaccard, runs

SEA = "The sea between Sweden and Poland is the Baltic Sea, which is shallow and brackish."
RAIN = "Grey threads fall and stitch the street to the sky while gutters sing all night long."


def record(id: str, response: str, instruction: str = "Say it.", **extra: object) -> Record:
    return Record(id, (Message("user", instruction), Message("assistant", response)), extra)


def pool(vectors: Mapping[str, tuple[float, ...]], scores: Mapping[str, float | None] | None = None) -> Pool:
    data = Dataset.of([record(id, "Hello.") for id in vectors])
    return Pool(data, {id: Score(v) for id, v in (scores or {}).items()}, {}, "IFD", random.Random(0), {}, vectors)


POINTS = {"a": (1.0, 0.0), "b": (0.98, 0.199), "c": (0.96, 0.28), "d": (0.0, 1.0), "e": (0.1, 0.995), "f": (-1.0, 0.0)}


def told(selector: Any, chosen_from: Pool) -> dict[str, str]:
    return {d.record_id: f"{d.action}: {d.reason}" for d in selector(chosen_from)}


def kept(selector: Any, chosen_from: Pool) -> list[str]:
    return [d.record_id for d in selector(chosen_from) if d.action == "keep"]


def test_facility_location_keeps_the_card_s_rows_and_names_its_embedder() -> None:
    found = told(Diverse(fraction=0.5, candidates=None), pool(POINTS))
    assert [id for id in found if found[id].startswith("keep")] == ["c", "d", "f"]
    assert found["c"] == "keep: facility location by hashed-ngrams: place 1 of 3, adds 4.3193"
    assert found["a"] == "drop: not chosen for diversity: facility location by hashed-ngrams chose 3 of 6 candidates"


def test_only_the_best_by_score_are_candidates() -> None:
    scores = {"a": 0.9, "b": 0.8, "c": 1.2, "d": 0.7, "e": None, "f": 0.1}
    found = told(Diverse(fraction=None, count=2, candidates=0.5, below=1.0), pool(POINTS, scores))
    assert found["c"] == "drop: IFD not below 1: 1.2000"
    assert found["e"] == "drop: no score: not a finite number"
    assert found["f"] == "drop: not among the largest 50%: IFD 0.1000, rank 4 of 4; the last one kept has 0.7000"
    assert found["d"] == "keep: facility location by hashed-ngrams: place 2 of 2, adds 0.4689; IFD 0.7000"
    assert sum(said.startswith("keep") for said in found.values()) == 2


def test_k_centre_keeps_the_farthest() -> None:
    found = told(Diverse(rule="k-centre", fraction=0.5, candidates=None), pool(POINTS))
    assert found["f"] == "keep: k-centre by hashed-ngrams: place 2 of 3, distance 1.4832"
    assert [id for id in found if found[id].startswith("keep")] == ["a", "e", "f"]


def test_clusters_keep_the_best_of_each_or_the_most_central() -> None:
    pytest.importorskip("sklearn", reason='needs the "cluster" extra')
    points = {f"l{n}": (n / 100, 0.0) for n in range(5)} | {f"r{n}": (9 + n / 100, 0.0) for n in range(5)}
    scores = {id: n / 10 for n, id in enumerate(points)}
    best = Diverse(rule="clusters", clusters=2, fraction=0.2, candidates=1.0)
    assert kept(best, pool(points, scores)) == ["l4", "r4"]
    central = Diverse(rule="clusters", clusters=2, fraction=0.2, candidates=None)
    assert kept(central, pool(points)) == ["l2", "r2"]
    assert "most central of each cluster by hashed-ngrams: rank 1 of 5 in cluster" in told(central, pool(points))["l2"]


def test_more_clusters_than_different_points_are_no_trouble() -> None:
    pytest.importorskip("sklearn", reason='needs the "cluster" extra')
    same = {f"r{n}": (0.0, 0.0) for n in range(6)}
    assert kept(Diverse(rule="clusters", fraction=0.34, candidates=None), pool(same)) == ["r0", "r1"]


@pytest.mark.parametrize("rule", ["facility-location", "k-centre", "clusters"])
def test_a_budget_not_below_the_candidates_keeps_them_all_and_one_record_is_enough(rule: Any) -> None:
    found = told(Diverse(rule=rule, fraction=None, count=6, candidates=None), pool(POINTS))
    assert set(found.values()) == {"keep: all candidates: the budget of 6 is not below their number, 6"}
    assert kept(Diverse(rule=rule, fraction=1.0, candidates=None), pool({"a": (1.0, 0.0)})) == ["a"]
    assert kept(Diverse(rule=rule, candidates=None), pool({"a": (1.0, 0.0)})) == []
    assert Diverse(rule=rule, candidates=None)(pool({}))[:] == []


def test_superfiltering_d_in_a_run_embeds_the_candidates_only(tmp_path: Path) -> None:
    data = Dataset.of([record(f"r{n}", f"{SEA} {n} {RAIN[: n * 3]}", f"Ask about the sea {n}.") for n in range(20)])
    method = Select(scorer=Select().scorer.__class__(student=ScriptedModel(), template="bare"),
                    keep=Diverse(fraction=0.1, candidates=0.5))  # fmt: skip
    with Run(tmp_path, Local()) as run:
        result = method(data, run)
        run.finish(data, result.decisions)
        worked = {stage.stage: stage.worked for stage in run.stages}
    assert worked == {"score": 20, "embed-candidates": 10}
    assert result.data is not None
    assert len(result.data) == 2
    assert [(p.stage, p.items) for p in method.plan(20)] == [("score", 20), ("embed-candidates", 10)]


def test_the_text_that_is_embedded_is_instruction_input_and_response_a_line_each() -> None:
    seen: list[str] = []

    class Watching(HashedNgrams):
        def embed(self, texts: Any) -> list[tuple[float, ...]]:
            seen.extend(texts)
            return [(0.0,)] * len(texts)

    EmbedText(model=Watching())([record("a", "No.", "Is it so?\n\nA stone.", input="A stone."), record("b", "Yes.")])
    assert seen == ["Is it so?\nA stone.\nNo.", "Say it.\n\nYes."]


def test_hashed_ngrams_put_like_spelling_near_and_say_nothing_of_an_empty_text() -> None:
    one, near, far, none = HashedNgrams().embed([SEA, SEA.replace("brackish", "brown"), RAIN, "  "])
    assert math.fsum(x * x for x in one) == pytest.approx(1, abs=1e-4)
    assert math.dist(one, near) < 0.7 < math.dist(one, far)
    assert set(none) == {0.0}
    assert HashedNgrams().embed([SEA]) == [one]
    with pytest.raises(RecipeError, match="letters and width are numbers of 1 or more"):
        HashedNgrams(width=0)


def test_without_sentence_transformers_the_encoder_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(MissingExtra) as refusal:
        SentenceModel(name="nowhere").embed(["a"])
    assert str(refusal.value) == 'a sentence encoder needs the "embed" extra: pip install "tunesift[embed]".'


def test_near_duplicates_go_and_say_whom_they_are_like() -> None:
    long = " ".join(f"word{n}" for n in range(40))
    records = [
        record("a", long), record("b", RAIN), record("c", long.upper() + " "), record("d", long + " more"),
        record("e", ""), record("f", " "),
    ]  # fmt: skip
    chosen_from = Pool(Dataset.of(records), {}, {}, "", random.Random(0))
    assert told(Distinct(of="response"), chosen_from) == {
        "a": "keep: no earlier record is like it: minhash, response",
        "b": "keep: no earlier record is like it: minhash, response",
        "c": "drop: duplicate: says what a says",
        "d": "drop: near-duplicate: Jaccard 0.9744 with a",
        "e": "keep: no earlier record is like it: minhash, response",
        "f": "drop: duplicate: says what e says",
    }
    assert kept(Distinct(of="response", rule="exact"), chosen_from) == ["a", "b", "d", "e"]


def test_an_equal_of_a_record_that_went_points_to_the_one_that_stays() -> None:
    long = " ".join(f"word{n}" for n in range(40))
    records = [record("a", long), record("b", long + " more"), record("c", long + " more")]
    found = told(Distinct(), Pool(Dataset.of(records), {}, {}, "", random.Random(0)))
    assert found["c"] == found["b"] == "drop: near-duplicate: Jaccard 0.9756 with a"


@given(st.lists(st.lists(st.sampled_from("abcd"), min_size=1, max_size=12), min_size=1, max_size=12))
def test_whoever_is_dropped_is_as_near_as_its_reason_says_and_exact_ones_never_stay(texts: list[list[str]]) -> None:
    data = Dataset.of([record(f"r{n}", " ".join(words)) for n, words in enumerate(texts)])
    found = told(Distinct(of="response"), Pool(data, {}, {}, "", random.Random(0)))
    by_id = dict(zip(found, texts, strict=True))
    for id, said in found.items():
        if "Jaccard" in said:
            value, other = said.split("Jaccard ")[1].split(" with ")
            assert jaccard(runs(by_id[id], 3), runs(by_id[other], 3)) == pytest.approx(float(value), abs=1e-4)
            assert found[other].startswith("keep")
    stay = [tuple(by_id[id]) for id in found if found[id].startswith("keep")]
    assert len(set(stay)) == len(stay)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Distinct(similarity=0.3), "keep.similarity: 0.3 is not from 0.7 to 1; write 0.8."),
        (lambda: Distinct(words=0), "keep.words: 0 is no number of words; write 1 or more."),
        (lambda: Diverse(clusters=0), "keep.clusters: 0 is no number of clusters; write 1 or more."),
        (lambda: Diverse(candidates=None, below=1.0),
         "keep.below: nothing is scored where keep.candidates is null; give it a fraction."),
        (lambda: Diverse(candidates=5.0),
         "keep.candidates: 5 is not a fraction above 0 and up to 1; write 0.1 to keep 10 percent."),
    ],
)  # fmt: skip
def test_settings_that_mean_nothing_are_refused(make: Any, sentence: str) -> None:
    with pytest.raises(RecipeError) as refusal:
        make()
    assert str(refusal.value) == sentence


def test_the_command_line_names_them_all(tmp_path: Path) -> None:
    rows = "".join(f'{{"instruction": "Say {n}.", "output": "{SEA} {n}"}}\n' for n in range(30))
    (tmp_path / "in.jsonl").write_text(rows)
    for number, settings in enumerate((
        ["keep.kind=combined", "keep.weights.ifd=1", "keep.weights.reversed-ifd=-1", "keep.length_bands=2",
         "also=[{kind: reversed-ifd, student: {kind: scripted}}]", 'keep.where=["ifd <= 1"]'],
        ["keep.kind=diverse", "keep.fraction=0.1"], ["keep.kind=distinct"], ["keep.kind=shortest"],
        ["scorer.kind=perplexity", "scorer.student.kind=scripted", "keep.below=null"],
    )):  # fmt: skip
        output = tmp_path / f"{number}.jsonl"
        done = run_recipe(
            recipe_for("select", tmp_path / "in.jsonl", output, ["scorer.student.kind=scripted", *settings])
        )
        assert done.counts["in"] == 30
        assert done.counts["kept"] >= 1, settings
