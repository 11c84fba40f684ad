"""Preference pairs in TRL's forms: read as what they say, kept untouched, written and read back as the same pairs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_cli import Command
from test_cli import tunesift as tunesift  # a fixture, which pytest finds by this name

from tunesift import DataError, Message, Preference, read_preferences, recipe_for, run_recipe
from tunesift.writing import write_new

ASK, YES, NO = Message("user", "Is it?"), Message("assistant", "Yes."), Message("assistant", "No.")
SYSTEM = Message("system", "Be brief.")


def chat(*messages: Message) -> list[dict[str, str]]:
    return [{"role": m.role, "content": m.text} for m in messages]


FORMS: dict[str, tuple[dict[str, Any], tuple[Message, ...]]] = {
    "explicit, standard": ({"prompt": "Is it?", "chosen": "Yes.", "rejected": "No."}, (ASK,)),
    "explicit, conversational": ({"prompt": chat(ASK), "chosen": chat(YES), "rejected": chat(NO)}, (ASK,)),
    "implicit, conversational": ({"chosen": chat(ASK, YES), "rejected": chat(ASK, NO)}, (ASK,)),
    "with a system message": ({"prompt": chat(SYSTEM, ASK), "chosen": chat(YES), "rejected": chat(NO)}, (SYSTEM, ASK)),
    "of several turns": ({"chosen": chat(ASK, NO, ASK, YES), "rejected": chat(ASK, NO, ASK, NO)}, (ASK, NO, ASK)),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_pair_is_read_and_written_back_as_the_same_pair(tmp_path: Path, form: str) -> None:
    fields, prompt = FORMS[form]
    (tmp_path / "in.jsonl").write_text(json.dumps({"id": "p", **fields, "margin": 1.5, "source": "x"}) + "\n")
    (pair,) = read_preferences(tmp_path / "in.jsonl")
    assert pair == Preference("p", prompt, YES, NO, 1.5, {"source": "x"})
    write_new([pair], tmp_path / "out.jsonl", "preference")
    assert list(read_preferences(tmp_path / "out.jsonl")) == [pair]


UNPAIRED = {"prompt": "Is it?", "completion": "Yes.", "label": True}


def test_what_is_not_a_pair_is_refused_with_what_it_lacks(tmp_path: Path) -> None:
    (tmp_path / "kto.jsonl").write_text(json.dumps(UNPAIRED) + "\n")
    with pytest.raises(
        DataError, match='one answer with a "label", which is no pair; a preference pair needs "chosen"'
    ):
        read_preferences(tmp_path / "kto.jsonl")
    (tmp_path / "texts.jsonl").write_text(json.dumps({"chosen": "Is it? Yes.", "rejected": "Is it? No."}) + "\n")
    with pytest.raises(DataError, match="needs a prompt before its answers"):
        read_preferences(tmp_path / "texts.jsonl")


def test_a_selection_writes_kept_pairs_untouched_and_shows_both_answers(tmp_path: Path, tunesift: Command) -> None:
    rows = [json.dumps({"id": f"p{n}", **fields, "odd":  [1, None]}, indent=None) for n, (fields, _) in
            enumerate(FORMS.values())]  # fmt: skip
    (tmp_path / "in.jsonl").write_text("".join(f"{row}\n" for row in rows))
    words = ["scorer.student.kind=scripted", "keep=100%", "keep.below=null"]
    done = run_recipe(recipe_for("select", tmp_path / "in.jsonl", tmp_path / "out.jsonl", words))
    assert (tmp_path / "out.jsonl").read_text() == (tmp_path / "in.jsonl").read_text()
    told = tunesift("inspect", str(done.folder), "p3").out
    said = [line.strip() for line in told.splitlines()[2:6]]
    assert said == ["system: Be brief.", "user: Is it?", "assistant: Yes.", "rejected: No."]
    assert '["rejected","No."]' in (done.folder / "report.html").read_text().replace(", ", ",")
    assert tunesift("verify", str(done.folder)).code == 0
