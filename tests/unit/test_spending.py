"""What the report says of money: by model, beside who asked it, without the method knowing of prices."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from tunesift.books import Asking, Attempt, Billed
from tunesift.budget import Caps, Price
from tunesift.report.spending import Paid, priced, spent_on
from tunesift.running.ledger import Ledger

METHOD = {
    "kind": "star-agents",
    "agents": [
        {"name": "gpt", "model": {"kind": "http", "url": "u", "model": "gpt-4"}},
        {"name": "local", "model": {"kind": "transformers", "name": "phi"}},
        {"name": "mistral", "model": {"kind": "http", "url": "u", "model": "mistral-7b"}},
    ],
    "judge": {"kind": "http", "url": "u", "model": "gpt-4"},
    "others": [{"kind": "http", "url": "u", "model": "free"}],
}


def asked(ledger: Ledger, model: str, prompt: int, answer: int, billed: Billed = "exact") -> None:
    asking = Asking(model, f"{model} u", "/chat/completions", "r", prompt_bound=1_000, completion_bound=1_000)
    ledger.reserve(asking)
    ledger.settle(Attempt(asking, "", billed, prompt, answer, model, 0.1))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two models with prices, one without, and one that nobody asked."""
    prices = {"gpt-4": Price(10.0, 30.0), "mistral-7b": Price(1.0, 2.0)}
    with closing(Ledger(tmp_path, Caps(), prices)) as ledger:
        asked(ledger, "gpt-4", 100, 50)
        asked(ledger, "gpt-4", 100, 50)
        asked(ledger, "mistral-7b", 200, 100)
        asked(ledger, "mistral-7b", 0, 0, "unknown")
        asked(ledger, "free", 7, 8)
    return tmp_path


def test_each_model_has_what_it_was_paid_and_the_places_that_name_it(folder: Path) -> None:
    assert spent_on(folder, METHOD) == [
        Paid("free", ("others.0",), 1, 7, 8, 0, 0.0, 0.0),
        Paid("gpt-4", ("agents.gpt", "judge"), 2, 200, 100, 0, 0.005, 0.0),
        Paid("mistral-7b", ("agents.mistral",), 2, 200, 100, 2_000, 0.0004, 0.003),
    ]
    assert [paid.row(True)["cost_at_most"] for paid in spent_on(folder, METHOD)] == pytest.approx([0, 0.005, 0.0034])
    assert "cost" not in spent_on(folder, METHOD)[0].row(False)


def test_a_run_that_asked_no_endpoint_paid_nothing(tmp_path: Path) -> None:
    assert spent_on(tmp_path, METHOD) == []
    assert priced([{"agent": "gpt", "model": "gpt-4"}], []) == [{"agent": "gpt", "model": "gpt-4"}]


def test_a_tables_rows_get_the_cost_of_their_model_and_what_is_shared_is_said_to_be(folder: Path) -> None:
    paid = spent_on(folder, METHOD)
    rows = [
        {"agent": "gpt", "model": "gpt-4"},
        {"agent": "local", "model": "phi"},
        {"agent": "m", "model": "mistral-7b"},
    ]
    assert [row["cost"] for row in priced(rows, paid)] == ["0.0050 for agents.gpt, judge", None, 0.0004]
    for other in ([{"agent": "gpt"}], [{"model": "phi"}], [{"model": "free"}]):
        assert priced(other, paid) == other
