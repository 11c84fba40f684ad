"""Of which tokens is one drawn, and do weights that are put away come back?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from faultserver.fixtures import Ledger, Make
from tunesift import Message, Sampling, Span, TransformersModel
from tunesift.models import loading, transformers

ASKED = [(Message("user", "Name the sea."),)]


def test_a_draw_is_of_the_likeliest_tokens_that_hold_the_share(make_tiny: Callable[..., Path]) -> None:
    """Of a share that one token holds alone it is the likeliest each time; of all of them it is not."""
    model = TransformersModel(name=str(make_tiny()), device="cpu")
    warm = Sampling(temperature=1.0, max_tokens=12)
    likeliest = model.chat(ASKED, replace(warm, temperature=0.0))
    seeds = range(4)
    assert all(model.chat(ASKED, replace(warm, top_p=1e-6, seed=seed)) == likeliest for seed in seeds)
    whole = [model.chat(ASKED, replace(warm, seed=seed)) for seed in seeds]
    assert all(said != likeliest for said in whole)
    assert [model.chat(ASKED, replace(warm, top_p=0.5, seed=seed)) for seed in seeds] != whole


def test_an_endpoint_is_told_of_a_share_only_where_there_is_one(make: Make, ledger: Ledger) -> None:
    model, sent = make(), []
    for sampling in (warm := Sampling(temperature=1.0), replace(warm, top_p=1.0), replace(warm, top_p=0.9)):
        model.chat(ASKED, sampling)
        sent.append(ledger.asked[-1].request)
    assert sent[0] == sent[1] != sent[2]


def test_weights_that_are_put_away_for_a_training_are_loaded_anew(make_tiny: Callable[..., Path]) -> None:
    model = TransformersModel(name=str(make_tiny()), device="cpu")
    before = model.loss([Span("x", "y")])
    assert transformers._LOADED
    loading.put_away()
    assert not transformers._LOADED
    assert model.loss([Span("x", "y")]) == before
