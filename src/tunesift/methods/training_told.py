"""What do pages that train tell of it? Curves of losses, and a row of figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from tunesift.errors import told_bytes
from tunesift.records import Failure, Score
from tunesift.running.charts import Chart
from tunesift.running.step import Outcomes
from tunesift.tuning.process import Trained

CURVE = Chart(
    "lines", "step", "loss", "of", "updates of the weights", "loss in nats per token",
    "The mean loss of the responses in each batch as it was trained on, and of the records that were held out. A "
    "held-out loss that rises again says that the student learns the records by heart.",
    names=("trained on", "held out"),
)  # fmt: skip
LOSS_OF_PAIRS = replace(
    CURVE, y_name="loss in nats per pair",
    caption="The mean loss of the pairs in each batch as it was trained on, and of those that were held out: 0.693 "
    "where the student tells the two answers apart no better than the reference does.",
)  # fmt: skip
PREFERRED = Chart(
    "lines", "step", "share", "of", "updates of the weights", "share of the pairs",
    "In how many pairs the chosen answer has gained more over the reference than the rejected one, in each batch and "
    "of those that were held out; half of them by chance.",
    names=("trained on", "held out"),
)  # fmt: skip
_LOSSES = {"loss": "loss", "held-out loss": "eval_loss"}


def curve(trained: Trained, name: str = "loss", column: str = "loss") -> Iterator[Mapping[str, object]]:
    """One of TRL's figures update by update, of what was trained on and of what was held out."""
    for said, of in ((name, "trained on"), (f"eval_{name}", "held out")):
        yield from ({"step": h["step"], column: h[said], "of": of} for h in trained.history if said in h)


def told_row(trained: Trained, what: str = "records") -> dict[str, object]:
    """How many were read in how many updates, on what, and the first and the last losses."""
    losses = {of: [h[name] for h in trained.history if name in h] for of, name in _LOSSES.items()}
    return {
        what: trained.records, "tokens": trained.tokens, "updates": trained.steps,
        **{f"{of}, {when}": round(found[place], 4)
           for of, found in losses.items() if found for when, place in (("first", 0), ("last", -1))},
        "device": trained.device, "precision": trained.precision, "memory": told_bytes(trained.peak_bytes),
    }  # fmt: skip


def first_reason(measured: Outcomes[Score]) -> str:
    """Why the first of what was measured is not trained on."""
    score = measured[next(iter(measured))]
    return score.message if isinstance(score, Failure) else score.note
