"""Few that stand for all, near-duplicates, and the embeddings that stand in for a sentence encoder."""

from __future__ import annotations

import hashlib
import math
import random
import re
import sys
import zlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesift import (
    Dataset,
    Decision,
    Distinct,
    Diverse,
    Failure,
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
from tunesift.scoring import duplicates
from tunesift.scoring.diverse import EmbedText, embedder_name
from tunesift.scoring.diversity import clusters_of
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
    reasons = told(best, pool(points, scores))
    said = "largest of each cluster by hashed-ngrams: rank"
    assert re.fullmatch(rf"keep: {said} 1 of 5 in cluster [01]; IFD 0\.4000", reasons["l4"])
    assert re.fullmatch(rf"drop: not among the {said} 2 of 5 in cluster [01]; IFD 0\.3000", reasons["l3"])
    central = Diverse(rule="clusters", clusters=2, fraction=0.2, candidates=None)
    assert kept(central, pool(points)) == ["l2", "r2"]
    assert "most central of each cluster by hashed-ngrams: rank 1 of 5 in cluster" in told(central, pool(points))["l2"]
    assert len(kept(Diverse(rule="clusters", clusters=1, fraction=0.4, candidates=None), pool(points))) == 4


def test_clusters_are_those_of_one_start_with_seed_0_every_time() -> None:
    cluster = pytest.importorskip("sklearn.cluster", reason='needs the "cluster" extra')
    points = np.random.default_rng(0).normal(size=(200, 3))
    labels, distances = clusters_of(points, 12)
    expected = cluster.KMeans(12, n_init=1, random_state=0).fit(points)
    assert labels.tolist() == expected.labels_.tolist()
    assert distances == pytest.approx(expected.transform(points).min(axis=1))


def test_without_scikit_learn_clusters_name_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.cluster", None)
    with pytest.raises(MissingExtra) as refusal:
        clusters_of([(0.0,), (1.0,)], 2)
    assert str(refusal.value) == 'clusters need the "cluster" extra: pip install "tunesift[cluster]".'


def test_a_record_whose_embedding_failed_is_set_aside_with_its_failure() -> None:
    without = {id: point for id, point in POINTS.items() if id != "b"}
    failed = replace(pool(POINTS), vectors=without, unplaced={"b": Failure("too-long", "9 tokens")})
    found = list(Diverse(fraction=0.5, candidates=None)(failed))
    assert found[1] == Decision("b", "quarantine", "too-long: 9 tokens")
    assert [d.action for d in found].count("keep") == 3
    assert next(d for d in found if d.action == "drop").reason.endswith("chose 3 of 5 candidates")


def test_an_embedder_is_named_with_the_last_part_of_its_model_s_name() -> None:
    assert embedder_name(SentenceModel(name="models/all-MiniLM-L6-v2")) == "sentence-transformers all-MiniLM-L6-v2"


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

    EmbedText(model=Watching())([record("a", "No.", "Is it so?\n\nA stone.", input="A stone."), record("b", "Yes."),
                                record("c", "Yes.", input="Not of the prompt.")])  # fmt: skip
    assert seen == ["Is it so?\nA stone.\nNo.", "Say it.\n\nYes.", "Say it.\n\nYes."]


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


def test_nearly_equal_texts_are_found_in_scripts_without_spaces() -> None:
    text = "港口位于一个狭长海湾的尽头，为什么那里的高潮比外海岸来得晚，如何从地图上估计这个延迟时间？"
    other = "请写一首关于秋天森林里小动物准备过冬的短诗，并说明它用了哪些修辞手法和意象来表达感情。"
    records = [Record(id, (Message("user", "Say."), Message("assistant", said)))
               for id, said in (("a", text), ("b", text[:-4] + "时刻？"), ("c", other), ("d", text))]  # fmt: skip
    found = told(Distinct(of="response"), Pool(Dataset.of(records), {}, {}, "", random.Random(0)))
    assert found["b"].startswith("drop: near-duplicate: Jaccard 0.")
    assert found["c"].startswith("keep")
    assert found["d"] == "drop: duplicate: says what a says"


def test_texts_of_the_same_runs_that_are_not_equal_are_near_and_not_called_equal() -> None:
    records = [Record(id, (Message("user", "Say."), Message("assistant", said)))
               for id, said in (("a", "x y z x y z"), ("b", "y z x y z x"))]  # fmt: skip
    found = told(Distinct(of="response"), Pool(Dataset.of(records), {}, {}, "", random.Random(0)))
    assert found["b"] == "drop: near-duplicate: Jaccard 1.0000 with a"


def test_two_texts_are_nearly_equal_from_the_similarity_on() -> None:
    nine = [f"word{n}" for n in range(9)]
    records = [record("a", " ".join(nine)), record("b", " ".join([*nine[:-1], "other"]))]  # 8 of 10 words shared
    chosen_from = Pool(Dataset.of(records), {}, {}, "", random.Random(0))
    near = told(Distinct(of="response", words=1, similarity=0.8), chosen_from)
    assert near["b"] == "drop: near-duplicate: Jaccard 0.8000 with a"
    assert kept(Distinct(of="response", words=1, similarity=0.81), chosen_from) == ["a", "b"]


def test_only_the_last_response_is_compared_where_that_is_asked() -> None:
    def talk(id: str, between: str) -> Record:
        said = ("user", "Say it."), ("assistant", between), ("user", "Again."), ("assistant", SEA)
        return Record(id, tuple(Message(role, text) for role, text in said))  # type: ignore[arg-type]

    chosen_from = Pool(Dataset.of([talk("a", RAIN), talk("b", "Nothing.")]), {}, {}, "", random.Random(0))
    assert kept(Distinct(of="response"), chosen_from) == ["a"]
    assert kept(Distinct(of="instruction"), chosen_from) == ["a", "b"]


@pytest.mark.parametrize(("text", "size", "count"), [("", 3, 1), ("a b", 3, 1), ("a b c", 3, 1), ("a b c d", 3, 2),
                                                     ("a b a b", 2, 2), ("a a a", 1, 1)])  # fmt: skip
def test_a_text_has_as_many_runs_as_places_where_one_can_begin_and_at_least_one(
    text: str, size: int, count: int
) -> None:
    assert len(runs(text.split(), size)) == count


def test_near_duplicates_are_looked_for_with_the_same_hashes_on_every_machine() -> None:
    """Multiply-shift hashing modulo 2^64 in whole numbers of Python; 125 factors, then as many shifts, of SHAKE-256."""
    stream = hashlib.shake_256(b"tunesift minhash").digest(2000)
    numbers = [int.from_bytes(stream[n : n + 8], "little") for n in range(0, 2000, 8)]
    factors, shifts = [n | 1 for n in numbers[:125]], numbers[125:]
    drawn = duplicates._constants()
    assert (drawn[0].tolist(), drawn[1].tolist()) == (factors, shifts)
    texts = [" ".join(SEA.split()[n : n + 3]) for n in range(len(SEA.split()) - 2)]
    hashes = [zlib.crc32(text.encode()) for text in texts]
    least = [min((h * f + s) % 2**64 >> 32 for h in hashes) for f, s in zip(factors, shifts, strict=True)]
    bands = [sum(least[5 * n + m] * factors[m] for m in range(5)) % 2**64 for n in range(25)]
    assert duplicates._bands(runs(SEA.split(), 3)).tolist() == bands


def test_pairs_of_seven_tenths_are_found_but_for_one_in_a_hundred() -> None:
    """Each pair shares 28 of 40 words, Jaccard 0.7, and no word with another pair."""
    texts = {}
    for n in range(60):
        shared = [f"pair{n}word{m}" for m in range(28)]
        texts[f"a{n}"], texts[f"b{n}"] = ([*shared, *(f"{side}{n}word{m}" for m in range(6))] for side in "ab")
    data = Dataset.of([record(id, " ".join(words)) for id, words in texts.items()])
    found = told(Distinct(of="response", words=1, similarity=0.7), Pool(data, {}, {}, "", random.Random(0)))
    dropped = [id for id, said in found.items() if said.startswith("drop")]
    assert {id[0] for id in dropped} == {"b"}
    assert all(found[id] == f"drop: near-duplicate: Jaccard 0.7000 with a{id[1:]}" for id in dropped)
    assert len(dropped) >= 57


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
        (lambda: Distinct(similarity=1.5), "keep.similarity: 1.5 is not from 0.7 to 1; write 0.8."),
        (lambda: Distinct(similarity=0.3), "keep.similarity: 0.3 is not from 0.7 to 1; write 0.8."),
        (lambda: Distinct(words=0), "keep.words: 0 is no number of words; write 1 or more."),
        (lambda: Diverse(clusters=0), "keep.clusters: 0 is no number of clusters; write 1 or more."),
        (lambda: Diverse(candidates=1.5),
         "keep.candidates: 1.5 is not a fraction above 0 and up to 1; write 0.1 to keep 10 percent."),
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


def test_the_ends_of_what_settings_may_be_are_allowed() -> None:
    assert (Distinct(similarity=0.7).similarity, Distinct(similarity=1).similarity, Distinct(words=1).words) == (
        0.7,
        1,
        1,
    )


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
