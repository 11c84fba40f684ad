"""What every method asks its models, word for word, and what comes of it, is as expected; `make golden`.

A prompt, a role, a seam or a sampling that changes unnoticed is another method under the same name.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from harness.recorded import Recorded
from harness.stars import GAP, QUALITY, Planted, Umpire, Weigher
from tunesift import (
    IFD,
    Agent,
    Asking,
    Cherry,
    Clear,
    Confident,
    Controllability,
    Correct,
    Dataset,
    Debatune,
    Diverse,
    DualIFD,
    Embeddings,
    GenQA,
    Largest,
    Lists,
    Local,
    MCTuneEvaluate,
    Message,
    Perplexity,
    PreExperience,
    Rater,
    Record,
    Reflection,
    Run,
    ScoreRecords,
    Select,
    SelectIT,
    SelectiveReflection,
    StarAgents,
    Writing,
)

EXPECTED = Path(__file__).parents[1] / "golden" / "asked.json"
ONE = Largest(fraction=None, count=1)
PAIRS = [
    Record("sea", (Message("user", "Name the sea."), Message("assistant", "The Baltic Sea, which is cold."))),
    Record("sum", (Message("system", "Be brief."), Message("user", "Add the numbers.\n\n2 and 2"),
                   Message("assistant", "It is 4.")), {"input": "2 and 2"}),
]  # fmt: skip
TOPICS = [Record("dams", (Message("user", "Good rivers need dams"),))]
ANSWERED = [
    Record("a", (Message("user", "Why?\n[t_word: 4]"), Message("assistant", "Because it is so.")),
           {"mctune": {"selected": ["t_word"], "values": {"t_word": 4}, "row": "a", "sigma": 0.1, "sd": {"t_word": 2.0},
                       "all_measured": {"t_word": 4}, "analyzer_id": "tunesift/1/core"}}),
]  # fmt: skip
BOTH = [
    Record(f"dams~{side}-1", (Message("user", f"Good rivers need dams\n\nArgue {side} it, because of water."),
                              Message("assistant", f"They do {side} it, since water is short in summer.")),
           {"topic": "dams", "side": side, "argument": "water"})
    for side in ("affirmative", "negative")
]  # fmt: skip

LETTERS = {"answer>\nThe Baltic Sea": "Answer: A", "answer>\nIt is 4": "Answer: C", "Before": "Answer: the Baltic sea"}
SURE = Recorded(replies=LETTERS, otherwise="Verdict: second")
TEACHER = Recorded(who="teacher", says="taught")
AGENTS = tuple(Agent(name=name, model=Recorded(who=name, of=Planted(name=name, quality=quality, gap=GAP)))
               for name, quality in list(QUALITY.items())[:2])  # fmt: skip


def stars(**given: Any) -> StarAgents:  # Any: settings
    return StarAgents(**{
        "agents": AGENTS, "judge": Recorded(who="judge", of=Umpire()), "draws": 2, "from_near": 0,
        "small": Recorded(who="small", of=Weigher()), "large": Recorded(who="large", of=Weigher(large=True)), **given,
    })  # fmt: skip


CASES: dict[str, tuple[Callable[[], Any], list[Record]]] = {  # Any: methods
    "select": (lambda: Select(scorer=IFD(student=Recorded()), keep=ONE), PAIRS),
    "select, alpaca, canonical": (
        lambda: Select(scorer=IFD(student=Recorded(), profile="canonical", template="alpaca"), keep=ONE), PAIRS),
    "select, dual": (lambda: Select(scorer=DualIFD(small=Recorded(who="small"), large=Recorded(who="large")), keep=ONE), PAIRS),
    "select, diverse": (
        lambda: Select(scorer=IFD(student=Recorded()), keep=Diverse(embedder=Recorded(who="embedder"), count=1, fraction=None, candidates=1.0)), PAIRS),
    "cherry": (lambda: Cherry(student=Recorded(), pre_experience=PreExperience(tuner=None), keep=ONE), PAIRS),
    "cherry, alpaca": (lambda: Cherry(student=Recorded(), pre_experience=None, profile="canonical", template="alpaca",
                                      ratio="perplexity", keep=ONE), PAIRS),
    "score": (lambda: ScoreRecords(scorers=(Perplexity(student=Recorded()),)), PAIRS),
    "selectit": (lambda: SelectIT(raters=(Rater(model=Recorded()),), keep=ONE), PAIRS),
    "clear": (lambda: Clear(student=SURE, samples=2), PAIRS),
    "clear, otherwise": (lambda: Clear(student=SURE, samples=2, temperature=0.3, max_tokens=77,
                                       similarity=Embeddings(model=Recorded(who="embedder"))), PAIRS),
    "clear-correct": (
        lambda: Clear(student=Recorded(says="compared"), samples=2, max_tokens=88, temperature=0.4, keep=Confident(fraction=1.0),
                      correct=Correct(tuned=(Recorded(who="tuned", otherwise="A better answer it is."),), threshold=0.1,
                                      scope="all", max_tokens=66)), PAIRS),
    "reflection": (lambda: Reflection(teacher=TEACHER), PAIRS),
    "reflection, response": (
        lambda: Reflection(teacher=TEACHER, halves="response",
                           asking=Asking(max_tokens=99, temperature=0.1)), PAIRS),
    "reflection, unreadable": (
        lambda: Reflection(teacher=Recorded(who="mute"), halves="instruction",
                           asking=Asking(retries=1, retry_temperature=0.9)), PAIRS[:1]),
    "selective-reflection": (lambda: SelectiveReflection(teacher=TEACHER, student=Recorded(who="student")), PAIRS),
    "genqa": (lambda: GenQA(model=Recorded(says="generated"), count=2, lists=Lists(subtopics=2, topics=2, nested=2)), []),
    "genqa, in one go": (
        lambda: GenQA(model=Recorded(says="generated"), count=2, mode="single-shot", temperature=0.7, max_tokens=321,
                      splits=("code",)), []),
    "debatune": (lambda: Debatune(teacher=Recorded(says="debated"), arguments=1), TOPICS),
    "star-agents": (stars, PAIRS),
    "star-agents, rewrite": (
        lambda: stars(rewrite=True, judge_tokens=9, writing=Writing(temperature=0.2, instruction_tokens=31,
                                                                    response_tokens=32, hint=True)), PAIRS),
    "controllability": (
        lambda: Controllability(judge=Recorded(says="rated"), max_tokens=55), BOTH),
    "mctune-evaluate": (lambda: MCTuneEvaluate(model=Recorded(), max_tokens=44), ANSWERED),
}  # fmt: skip


def walked(case: str, folder: Path) -> dict[str, Any]:  # Any: JSON
    make, records = CASES[case]
    Recorded.heard.clear()
    data = Dataset.of(records)
    with Run(folder, Local(), max_failures=1.0) as run:
        result = make()(data, run)
        run.finish(data, result.decisions)
    assert Recorded.heard, "nobody was asked anything"
    tables = {path.stem: pq.read_table(path).to_pylist() for path in sorted((folder / "tables").glob("*.parquet"))}
    made = [] if result.data is None else [[r.id, [[m.role, m.text] for m in r.messages]] for r in result.data]
    found = {"asked": Recorded.heard, "decided": [f"{d.record_id}: {d.action}: {d.reason}" for d in result.decisions],
             "made": made, "tables": tables, "notes": dict(result.notes)}  # fmt: skip
    return _rounded(json.loads(json.dumps(found)))


def _rounded(value: Any) -> Any:  # Any: JSON
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, list):
        return [_rounded(inner) for inner in value]
    return {name: _rounded(inner) for name, inner in value.items()} if isinstance(value, dict) else value


@pytest.mark.parametrize("case", CASES)
def test_what_models_are_asked_and_what_comes_of_it_is_expected(case: str, tmp_path: Path) -> None:
    found = walked(case, tmp_path)
    if os.environ.get("GOLDEN") == "rewrite":
        old = json.loads(EXPECTED.read_text("utf-8")) if EXPECTED.exists() else {}
        EXPECTED.write_text(json.dumps({**old, case: found}, indent=0, sort_keys=True) + "\n", "utf-8")
    assert found == json.loads(EXPECTED.read_text("utf-8"))[case]
