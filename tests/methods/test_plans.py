"""What every method says that it will ask for, with its usual settings and with others, is as expected; `make golden`.

A plan is what a user decides by before any money is spent: stages, items, passes, models, bytes, answers, rounds.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from tunesift import recipe_for

EXPECTED = Path(__file__).parents[1] / "golden" / "plans.json"
HTTP = '{{kind: http, url: "http://localhost:9/v1", model: {}}}'
TEACHER = (f"teacher={HTTP.format('teacher')}",)
JUDGE = (f"model={HTTP.format('judge')}",)
STARS = (f"judge={HTTP.format('judge')}", "small.name=small", "large.name=large",
         f"agents=[{{name: first, model: {HTTP.format('one')}}}, {{name: second, model: {HTTP.format('two')}}}]")  # fmt: skip

CASES: dict[str, list[tuple[str, ...]]] = {
    "select": [
        (), ("scorer.kind=dual-ifd", "scorer.small.name=small", "scorer.large.name=large"), ("keep.kind=diverse",),
        ("keep.kind=quota", "keep.group=topic"), ("keep.below=null", "scorer.kind=perplexity"),
        ("keep.kind=diverse", "keep.embedder={kind: transformers, name: other}", "keep.candidates=0.5"),
        ("keep={kind: distinct, of: instruction}",),
    ],
    "cherry": [(), ("pre_experience=null",), ("pre_experience.tuner=null",), ("keep.kind=diverse",),
               ("pre_experience.clusters=3", "pre_experience.per_cluster=2", "pre_experience.tuner.epochs=5.0")],
    "selectit": [(), ('prompts=["From 1 to {ratings}: {instruction} {response}"]',), ("ratings=7",),
                 (f"raters=[{{model: {HTTP.format('judge')}}}]", "ratings=4"),
                 ("keep.kind=diverse",)],
    "score": [(), ("scorers=[{kind: perplexity}, {kind: ifd}]",)],
    "clear": [(), ("similarity={kind: embeddings, model: {kind: transformers, name: other}}",), ("samples=3", "max_tokens=99")],
    "clear-correct": [("correct.tuned=[{kind: transformers, name: tuned}]",),
                      ("correct.tuned=[{kind: transformers, name: tuned}]", "correct.scope=all")],
    "reflection": [TEACHER, (*TEACHER, "halves=instruction"), (*TEACHER, "halves=response"),
                   (*TEACHER, "asking.max_tokens=100", "asking.retries=3")],
    "selective-reflection": [
        TEACHER, (*TEACHER, "flow=full"), (*TEACHER, "valid_only=false"),
        (*TEACHER, "valid_only=false", "fraction=0.5"), (*TEACHER, "fraction=1.0"), (*TEACHER, "asking.max_tokens=100"),
    ],
    "genqa": [JUDGE, (*JUDGE, "count=7", "tries=4"), (*JUDGE, "mode=single-shot"), (*JUDGE, "splits=[code, math]"),
              (*JUDGE, "variants=[generator-nested]", "draws_per_row=1.5")],
    "debatune": [TEACHER, (*TEACHER, "rounds=1"), (*TEACHER, "sides=negative"), (*TEACHER, "make=prompts"),
                 (*TEACHER, "arguments=2", "debating.retries=3", "debating.turn_tokens=11")],
    "star-agents": [STARS, (*STARS, "draws=2"), (*STARS, "rewrite=true"), (*STARS, "writing.hint=true"),
                    (*STARS, "faithful=true", "judge_tokens=9")],
    "controllability": [(f"judge={HTTP.format('judge')}",), (f"judge={HTTP.format('judge')}", "max_tokens=9")],
    "mctune": [(), ("held_out=1",)],
    "mctune-evaluate": [("model.name=tuned",), ("model=null",), (*JUDGE, "max_tokens=9")],
    "tune": [(), ("tuner.epochs=1.0", "tuner.gradient_checkpointing=false"), ("tuner.steps=5",)],
}  # fmt: skip
NAMED = [(method, number) for method, cases in CASES.items() for number in range(len(cases))]


def planned(method: str, settings: tuple[str, ...]) -> list[dict[str, Any]]:
    recipe = recipe_for(method, Path("in.jsonl"), Path("out.jsonl"), list(settings))
    return [asdict(stage) for stage in recipe.method.plan(10)]


@pytest.mark.parametrize(("method", "number"), NAMED)
def test_a_method_plans_what_it_is_expected_to(method: str, number: int) -> None:
    settings = CASES[method][number]
    name = " ".join((method, *settings))
    found = planned(method, settings)
    if os.environ.get("GOLDEN") == "rewrite":
        old = json.loads(EXPECTED.read_text("utf-8")) if EXPECTED.exists() else {}
        EXPECTED.write_text(json.dumps({**old, name: found}, indent=0, sort_keys=True) + "\n", "utf-8")
    assert found == json.loads(EXPECTED.read_text("utf-8"))[name]
