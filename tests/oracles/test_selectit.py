"""SelectIT: the acceptance oracles of its card, by number. The definitions here are the paper's, written out."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

torch = pytest.importorskip("torch", reason='needs the "local" extra')
import slow  # noqa: E402
import transformers  # noqa: E402

from harness.tiny import MakeTiny  # noqa: E402
from tunesift import (  # noqa: E402
    Dataset,
    Failure,
    Largest,
    Message,
    ModelRefused,
    Pool,
    Record,
    Score,
    Span,
    TargetLoss,
    TransformersModel,
)
from tunesift.methods.selectit import (  # noqa: E402
    CUE,
    PROMPTS,
    Rate,
    Rated,
    Ratings,
    SelectIT,
    Settle,
    base,
    model_score,
    sentence_score,
    token_score,
)
from tunesift.models import transformers as transformers_models  # noqa: E402
from tunesift.models.likelihood import GAP, SpanEncoder  # noqa: E402
from tunesift.models.packed import MOST_ON_CPU  # noqa: E402
from tunesift.models.sharing import families  # noqa: E402

LONG = 512
"""Most tokens of the tiny models, enough for a rating prompt of single letters."""


def record(id: str, instruction: str, response: str) -> Record:
    return Record(id, (Message("user", instruction), Message("assistant", response)))


def by_definition(chances: Sequence[float]) -> float:
    """S_base / (K - 1) * sum over i of |P'_i - P'_base|, term by term."""
    whole = sum(chances)
    shares = [p / whole for p in chances]
    best = 0
    for n, share in enumerate(shares):
        if share > shares[best]:
            best = n
    return (best + 1) / (len(shares) - 1) * sum(abs(share - shares[best]) for share in shares)


def double_softmax(chances: Sequence[float]) -> float:
    """What the released code computes: must not be ours."""
    whole = sum(math.exp(p) for p in chances)
    return by_definition([math.exp(p) / whole for p in chances])


def test_oracle_1_the_papers_figure() -> None:
    figure = [0.05, 0.10, 0.50, 0.25, 0.10]
    assert base(figure) == 3
    assert token_score(figure) == pytest.approx(1.125, abs=1e-12) == by_definition(figure)
    assert double_softmax(figure) == pytest.approx(0.248118, abs=1e-6)


def test_oracle_2_the_closed_form_is_the_sum_and_only_shares_count() -> None:
    stream = random.Random(7)
    for _ in range(1000):
        drawn = [stream.random() ** 3 for _ in range(5)]
        assert token_score(drawn) == pytest.approx(by_definition(drawn), abs=1e-12)
        assert token_score([p * 1e-6 for p in drawn]) == pytest.approx(token_score(drawn), abs=1e-12)
    assert token_score([0, 0, 0, 0, 1]) == 5.0
    assert token_score([1, 0, 0, 0, 0]) == 1.0
    assert token_score([0.2] * 5) == 0.0 == token_score([0.1] * 3)


def test_oracle_3_a_pair_that_a_double_softmax_turns_round() -> None:
    a, b = [0.05, 0.06, 0.81, 0.05, 0.03], [0.17, 0.03, 0.08, 0.14, 0.58]
    assert (token_score(a), token_score(b)) == (pytest.approx(2.2875), pytest.approx(2.3750))
    assert (double_softmax(a), double_softmax(b)) == (
        pytest.approx(0.558396, abs=1e-6), pytest.approx(0.540232, abs=1e-6),
    )  # fmt: skip


def test_oracle_4_the_sentence_level_has_the_population_deviation() -> None:
    tokens = [1.125, 2.40, 1.80, 2.10, 1.56]
    mean = sum(tokens) / 5
    deviation = math.sqrt(sum((t - mean) ** 2 for t in tokens) / 5)
    assert (mean, deviation) == (pytest.approx(1.797), pytest.approx(0.438903, abs=1e-6))
    assert sentence_score(tokens, 0.2) == pytest.approx(1.651987, abs=1e-6)
    assert sentence_score(tokens, 0.2) == pytest.approx(mean / (1 + 0.2 * deviation))
    assert sentence_score(tokens, 0.0) == pytest.approx(mean)
    assert sentence_score([2.4], 0.2) == 2.4


def test_oracle_5_the_model_level_weights_by_shares_of_one_sum() -> None:
    sentences, sizes = (1.59, 2.13, 1.89), (7.0, 13.0, 70.0)
    assert model_score(sentences, sizes) == pytest.approx(1.901333, abs=1e-6)
    assert sum(w * s for w, s in zip((7 / 20, 13 / 20, 70 / 90), sentences, strict=True)) == pytest.approx(3.411)
    assert model_score([1.59], [7.0]) == pytest.approx(1.59)
    assert model_score(sentences, [s * 1e9 for s in sizes]) == pytest.approx(model_score(sentences, sizes))
    assert model_score((1.89, 1.59, 2.13), (70.0, 7.0, 13.0)) == pytest.approx(model_score(sentences, sizes))


def test_oracle_6_scores_move_the_way_they_should() -> None:
    rest = [[(1 - top) / 4] * 2 + [top] + [(1 - top) / 4] * 2 for top in (0.3, 0.5, 0.7, 0.9, 1.0)]
    values = [token_score(p) for p in rest]
    assert values == sorted(set(values))
    tokens = [1.125, 2.40, 1.80, 2.10, 1.56]
    by_alpha = [sentence_score(tokens, alpha) for alpha in (0, 0.2, 0.4, 0.6, 0.8, 5)]
    assert by_alpha == sorted(by_alpha, reverse=True)
    assert sentence_score([*tokens, sum(tokens) / 5], 0.2) >= sentence_score(tokens, 0.2)


RECORDS = [
    record("one", "the thing in the end", "in the end, the thing"),
    record("two", "say the word", "word\n\nthe  word"),
    record("three", "x", "y"),
    record("four", "Count to 5.", "1 2 3 4 5" * 3),
    record("five", "the", "\U0001f642 the the the the"),
]


def short(n: int = 3, **settings: Any) -> SelectIT:
    """The method with short prompts, so that a slow model can read them one token at a time."""
    prompts = tuple(f"{word} {{ratings}}, in the scale." for word in ("Rate to", "Judge up to", "Say 1 to")[:n])
    return SelectIT(prompts=prompts, **settings)


def rate(folder: Path, **settings: Any) -> Rate:
    method = short(**settings)
    return Rate(model=TransformersModel(name=str(folder)), prompts=method.prompts, ratings=method.ratings,
                cue=method.cue, layout=method.layout)  # fmt: skip


def slowly(folder: Path, item: Record, layout: str = "prompt-first") -> list[list[float]]:
    """Every probability from a text written out here, one forward pass for each of the five ratings."""
    found = []
    for question in ("Rate to 5, in the scale.", "Judge up to 5, in the scale.", "Say 1 to 5, in the scale."):
        body = f"Task: {item.messages[0].text}\nResponse: {item.messages[1].text}"
        text = f"{question}\n\n{body}\nRating:\n" if layout == "prompt-first" else f"{body}\n\n{question}\n\nRating:\n"
        begins = [0] if "llama" in folder.name else []
        ids = (*begins, *slow.encode(folder, text))
        found.append([math.exp(-slow.one_loss(folder, ids, slow.encode(folder, str(r))[0])) for r in range(1, 6)])
    return found


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def folder(request: pytest.FixtureRequest, make_tiny: MakeTiny) -> Path:
    return make_tiny(request.param, length=LONG)


@pytest.mark.parametrize("layout", ["prompt-first", "record-first"])
def test_oracle_7_ratings_equal_the_slow_ones_at_any_batch_and_shared_beginning(folder: Path, layout: str) -> None:
    expected = {r.id: slowly(folder, r, layout) for r in RECORDS}
    for chunks in ([RECORDS], [RECORDS[::-1]], [[r] for r in RECORDS]):
        for part in chunks:
            for item, found in zip(part, rate(folder, layout=layout)(part), strict=True):
                assert isinstance(found, Ratings)
                for ours, plain in zip(found.chances, expected[item.id], strict=True):
                    assert ours == pytest.approx(plain, abs=1e-5), item.id


@pytest.fixture
def forwards(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Rows and tokens of each pass through a Llama's body."""
    seen: list[tuple[int, int]] = []
    plain = transformers.LlamaModel.forward

    def forward(self: Any, input_ids: Any = None, **options: Any) -> Any:
        seen.append(tuple(input_ids.shape))
        return plain(self, input_ids, **options)

    monkeypatch.setattr(transformers.LlamaModel, "forward", forward)
    return seen


@pytest.fixture
def padded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without packs, as for a model that reads none."""
    monkeypatch.setattr(transformers_models, "packed", lambda *given: None)


def test_in_packs_a_rating_prompt_is_read_once_a_pack_and_a_text_once_a_prompt(
    make_tiny: MakeTiny, forwards: list[tuple[int, int]]
) -> None:
    step = rate(make_tiny("llama", length=LONG))
    many = [record(f"{r.id}{n}", f"{n} {r.messages[0].text}", r.response + " in the end" * 12)
            for n in range(4) for r in RECORDS]  # fmt: skip
    step(RECORDS)
    encode = SpanEncoder(transformers_models._weights(step.model).tokenizer, LONG)
    texts = [encode(span).ids[:-1] for r in many for span in step._spans(r, ["1"])]
    forwards.clear()
    step(many)
    assert all(rows == 1 for rows, _ in forwards)
    assert max(tokens for _, tokens in forwards) <= MOST_ON_CPU
    read, whole = sum(tokens for _, tokens in forwards), sum(map(len, texts))
    assert read < whole - 20 * (len(texts) - 3 * len(forwards)), "a prompt has more than 20 tokens"
    assert len(forwards) <= read / MOST_ON_CPU + 2


def test_k_passes_per_record_and_one_per_rating_prompt_and_not_five_k(
    make_tiny: MakeTiny, forwards: list[tuple[int, int]], padded: None
) -> None:
    step = rate(make_tiny("llama", length=LONG))
    step(RECORDS)  # loads, and finds out whether the model goes on from a beginning
    transformers_models._weights(step.model)._beginnings.clear()
    many = [record(f"{r.id}{n}", f"{n} {r.messages[0].text}", r.response + " in the end" * 12)
            for n in range(4) for r in RECORDS]  # fmt: skip
    for expected in (3, 0):  # a prompt is read once, for all batches of this call and of those that follow
        forwards.clear()
        step(many)
        beginnings = [tokens for rows, tokens in forwards if rows == 1]
        assert len(beginnings) == expected
        assert all(tokens > 20 for tokens in beginnings)
        assert sum(rows for rows, _ in forwards) == 3 * len(many) + expected
        assert len(forwards) >= 6, "several batches"


def test_k_passes_per_record_and_one_per_record_where_the_record_comes_first(
    make_tiny: MakeTiny, forwards: list[tuple[int, int]], padded: None
) -> None:
    step = rate(make_tiny("llama", length=LONG), layout="record-first")
    step(RECORDS)
    many = [record(f"new {r.id}", r.messages[0].text, r.response + " in the end" * 12) for r in RECORDS]
    forwards.clear()
    step(many)
    beginnings = [tokens for rows, tokens in forwards if rows == 1]
    assert len(beginnings) == len(many)
    assert max(beginnings) > 100
    assert sum(rows for rows, _ in forwards) == 3 * len(many) + len(many)


@pytest.mark.parametrize("room", [0, 30, 10_000])
def test_ratings_do_not_depend_on_what_is_remembered(
    make_tiny: MakeTiny, monkeypatch: pytest.MonkeyPatch, room: int, padded: None
) -> None:
    monkeypatch.setattr(transformers_models, "REMEMBERED", room)
    folder = make_tiny("llama", length=LONG)
    step, expected = rate(folder), [slowly(folder, r) for r in RECORDS]
    for _ in range(3):  # what is remembered must come out of every use as it went in
        for found, plain in zip(step(RECORDS), expected, strict=True):
            assert isinstance(found, Ratings)
            assert [p for prompt in found.chances for p in prompt] == pytest.approx(
                [p for prompt in plain for p in prompt], abs=1e-5
            )
    kept = transformers_models._weights(step.model)._beginnings
    assert sum(map(len, kept)) <= room
    assert room < 100 or len(kept) > 3


def test_a_model_that_cannot_go_on_from_a_beginning_reads_whole_texts(
    make_tiny: MakeTiny, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, padded: None
) -> None:
    folder = make_tiny("llama", length=LONG)
    plain = transformers.LlamaModel.forward

    def forgetful(self: Any, input_ids: Any = None, past_key_values: Any = None, **options: Any) -> Any:
        return plain(self, input_ids, **options)

    monkeypatch.setattr(transformers.LlamaModel, "forward", forgetful)
    found = rate(folder)(RECORDS)
    assert "cannot go on from a remembered beginning" in caplog.text
    for item, ratings in zip(RECORDS, found, strict=True):
        assert isinstance(ratings, Ratings)
        assert ratings.chances[0] == pytest.approx(slowly(folder, item)[0], abs=1e-5)


def test_families_save_the_most_tokens_and_hold_every_text_once() -> None:
    stream = random.Random(3)
    for _ in range(200):
        heads = [tuple(stream.choices(range(3), k=stream.randint(0, 60))) for _ in range(4)]
        texts = [(9, *stream.choice(heads), *stream.choices(range(3), k=stream.randint(1, 9))) for _ in range(20)]
        found = families(texts)
        assert sorted(n for f in found for n in f.members) == list(range(20))
        for family in found:
            assert len({texts[n][: family.common] for n in family.members}) == 1
            assert all(family.common < len(texts[n]) for n in family.members)
    assert families([]) == []
    twins = [(1,) * 50 + (2,), (1,) * 50 + (3,), (4,) * 90 + (1,), (4,) * 90 + (2,), (5, 6)]
    assert [(f.common, f.members) for f in families(twins)] == [(90, (2, 3)), (0, (0, 1, 4))]


def test_oracle_8_a_model_of_zeros_is_sure_of_nothing(make_tiny: MakeTiny) -> None:
    folder = make_tiny("llama", zero=True, length=LONG)
    size = len(transformers.AutoTokenizer.from_pretrained(folder))
    step = rate(folder)
    rated = [Rated(r.id, (f,)) for r, f in zip(RECORDS, step(RECORDS), strict=True) if isinstance(f, Ratings)]
    scores = Settle(alpha=0.2, parameters=(1.0,), min_mass=0.0)(rated)
    assert len(scores) == len(RECORDS)
    for score in scores:
        assert isinstance(score, Score)
        assert score.value == pytest.approx(0.0, abs=1e-6)
        assert score.parts["rating_1"] == 1.0
        assert score.parts["rating_mass"] == pytest.approx(5 / size, rel=1e-6)


def test_oracle_9_the_distribution_is_read_at_the_last_real_token(make_tiny: MakeTiny) -> None:
    """A model without attention and feed-forward, whose next token is a lookup on the last one."""
    folder = make_tiny("llama", seed=5, length=LONG)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    for layer in model.model.layers:
        for part in (layer.self_attn.o_proj, layer.mlp.down_proj):
            torch.nn.init.zeros_(part.weight)
    model.save_pretrained(folder)
    found = rate(folder)(RECORDS)
    last = slow.encode(folder, CUE)[-1]
    expected = [math.exp(-slow.one_loss(folder, (last,), slow.encode(folder, str(r))[0])) for r in range(1, 6)]
    for ratings in found:
        assert isinstance(ratings, Ratings)
        for prompt in ratings.chances:
            assert prompt == pytest.approx(expected, abs=1e-6)


def test_oracle_10_an_empty_response_is_not_rated_and_no_other_changes(make_tiny: MakeTiny) -> None:
    step = rate(make_tiny("llama", length=LONG))
    alone = step(RECORDS)
    among = step([RECORDS[0], record("empty", "x", " \n"), *RECORDS[1:]])
    assert among[1] == Ratings((), note="empty_response")
    for ours, before in zip([among[0], *among[2:]], alone, strict=True):
        assert isinstance(ours, Ratings)
        assert isinstance(before, Ratings)
        for a, b in zip(ours.chances, before.chances, strict=True):
            assert a == pytest.approx(b, abs=1e-6)


def test_oracle_10_a_long_record_loses_the_middle_of_its_response_and_never_its_cue(make_tiny: MakeTiny) -> None:
    folder = make_tiny("llama", length=120)
    long = record("long", "say it", "".join(chr(97 + n % 26) for n in range(200)))
    step = rate(folder)
    (span, *_) = step._spans(long, ["1"])
    assert isinstance(span.context, str)
    assert span.spare is not None
    assert span.context[slice(*span.spare)] == long.response
    encode = SpanEncoder(transformers.AutoTokenizer.from_pretrained(folder), 120)
    segment = encode(span)
    text = transformers.AutoTokenizer.from_pretrained(folder).decode(segment.ids[1:])
    assert segment.truncated
    assert len(segment.ids) == 120
    assert text.endswith("\nRating:\n1")
    assert text.startswith("Rate to 5, in the scale.\n\nTask: say it\nResponse: abc")
    head, tail = text.removesuffix("\nRating:\n1").partition("Response: ")[2].split(GAP)
    assert long.response.startswith(head)
    assert long.response.endswith(tail)
    assert abs(len(head) - len(tail)) <= 1
    (found,) = step([long])
    assert isinstance(found, Ratings)
    assert found.truncated
    (score,) = Settle(alpha=0.2, parameters=(1.0,), min_mass=0.0)([Rated("long", (found,))])
    assert isinstance(score, Score)
    assert (score.note, score.parts["truncated"]) == ("truncated", 1.0)


def test_oracle_10_an_instruction_that_fills_the_model_is_not_rated(make_tiny: MakeTiny) -> None:
    step = rate(make_tiny("llama", length=120))
    found = step([record("much", "z" * 300, "y"), RECORDS[2]])
    assert found[0] == Ratings((), note="prompt_too_long")
    assert isinstance(found[1], Ratings)
    assert found[1].chances


def test_oracle_10_a_record_too_large_for_the_device_fails_alone(
    make_tiny: MakeTiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_tiny("llama", length=LONG)
    step = rate(folder)
    undisturbed = step(RECORDS)
    smile = slow.encode(folder, "\U0001f642")[-1]
    plain = transformers.LlamaModel.forward

    def forward(self: Any, input_ids: Any = None, **options: Any) -> Any:
        if (input_ids == smile).any():
            raise torch.OutOfMemoryError("the device is full")
        return plain(self, input_ids, **options)

    monkeypatch.setattr(transformers.LlamaModel, "forward", forward)
    found = step(RECORDS)
    assert [type(f) for f in found] == [Ratings] * 4 + [Failure]
    for ours, before in zip(found[:4], undisturbed[:4], strict=True):
        assert isinstance(ours, Ratings)
        assert isinstance(before, Ratings)
        for a, b in zip(ours.chances, before.chances, strict=True):
            assert a == pytest.approx(b, abs=1e-6)


def chosen(values: Sequence[float], keep: Largest) -> list[int]:
    data = Dataset.of([record(str(n), "x", "y") for n in range(len(values))])
    scores = {str(n): Score(value) for n, value in enumerate(values)}
    decisions = keep(Pool(data, scores, {}, "SelectIT", random.Random(0)))
    return [n for n, d in enumerate(decisions) if d.action == "keep"]


def test_oracle_11_ties_go_to_the_earlier_record() -> None:
    assert chosen([2, 1, 2, 0], Largest(fraction=0.25)) == [0]
    assert chosen([2, 1, 2, 0], Largest(fraction=1.0)) == [0, 1, 2, 3]
    assert chosen([2, 1, 2, 0], Largest(fraction=0.1)) == []
    assert chosen([1, 1, 1, 1], Largest(fraction=0.5)) == [0, 1]
    assert chosen([1, 2], Largest(fraction=None, count=9)) == [0, 1]
    assert chosen([3], Largest(fraction=1.0)) == [0]


def changed_vocabulary(folder: Path, alter: Callable[[dict[str, Any]], object]) -> None:
    rules = json.loads((folder / "tokenizer.json").read_text())
    alter(rules["model"])
    (folder / "tokenizer.json").write_text(json.dumps(rules))


def without_digits(model: dict[str, Any]) -> None:
    for digit in "12345":
        model["vocab"][f"<{digit}>"] = model["vocab"].pop(digit)
    model["unk_token"] = "!"  # every digit is one and the same token


def without_three(model: dict[str, Any]) -> None:
    model["vocab"]["<3>"] = model["vocab"].pop("3")
    model["unk_token"] = "!"


@pytest.mark.parametrize(("alter", "digit"), [(without_digits, 1), (without_three, 3)])
def test_oracle_12_a_tokenizer_without_digits_is_refused_and_rates_nothing(
    make_tiny: MakeTiny, alter: Callable[[dict[str, Any]], object], digit: int
) -> None:
    folder = make_tiny("llama", length=LONG)
    changed_vocabulary(folder, alter)
    with pytest.raises(ModelRefused) as refusal:
        rate(folder)(RECORDS)
    assert str(refusal.value) == (f"the tokenizer has no token for the digit {digit} alone; use a model that has.")


class Named(TransformersModel):
    """A model whose tokenizer is said to have these tokens."""

    tokens: ClassVar[dict[str, int]] = {str(r): 10 + r for r in range(1, 6)} | {f" {r}": 20 + r for r in range(1, 6)}

    def single_tokens(self, targets: Sequence[str]) -> list[int | None]:
        return [self.tokens.get(t) for t in targets]


def test_oracle_12_one_token_for_several_digits_is_refused() -> None:
    class Same(Named):
        tokens: ClassVar[dict[str, int]] = dict.fromkeys("12345", 7)

    with pytest.raises(ModelRefused, match=r"^the tokenizer has one token for several digits; use a model that tells"):
        Rate(model=Same(), prompts=PROMPTS, ratings=5, cue=CUE, layout="prompt-first")(RECORDS)


def test_a_digit_with_a_space_before_it_counts_where_the_cue_does_not_end_in_white_space() -> None:
    def written(cue: str, model: TransformersModel) -> list[list[str]]:
        return Rate(model=model, prompts=PROMPTS, ratings=5, cue=cue, layout="prompt-first")._written()

    class Bare(Named):
        tokens: ClassVar[dict[str, int]] = {str(r): 10 + r for r in range(1, 6)}

    class Spaced(Named):
        tokens: ClassVar[dict[str, int]] = {f" {r}": 10 + r for r in range(1, 6)}

    assert written("Rating:\n", Named()) == [["1"], ["2"], ["3"], ["4"], ["5"]]
    assert written("Rating:", Named()) == [["1", " 1"], ["2", " 2"], ["3", " 3"], ["4", " 4"], ["5", " 5"]]
    assert written("Rating:", Bare()) == [["1"], ["2"], ["3"], ["4"], ["5"]]
    assert written("Rating:", Spaced()) == [[" 1"], [" 2"], [" 3"], [" 4"], [" 5"]]
    with pytest.raises(ModelRefused, match="no token for the digit 1 alone"):
        written("Rating:\n", Spaced())


def test_both_ways_of_writing_a_digit_are_added(make_tiny: MakeTiny) -> None:
    folder = make_tiny("llama", length=LONG)

    def space_before_digits(model: dict[str, Any]) -> None:
        model["vocab"] |= {f"Ġ{d}": 256 + 2 + 6 + n for n, d in enumerate("12345")}
        model["merges"] += [["Ġ", d] for d in "12345"]

    changed_vocabulary(folder, space_before_digits)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    torch.manual_seed(1)
    model.resize_token_embeddings(256 + 2 + 6 + 5)
    model.save_pretrained(folder)
    (found,) = rate(folder, n=1, cue="Rating:")(RECORDS[2:3])
    assert isinstance(found, Ratings)
    text = "Rate to 5, in the scale.\n\nTask: x\nResponse: y\nRating:"
    ids = (0, *slow.encode(folder, text))
    for rating, chance in enumerate(found.chances[0], start=1):
        both = [slow.one_loss(folder, ids, slow.encode(folder, t)[0]) for t in (str(rating), f" {rating}")]
        assert chance == pytest.approx(sum(math.exp(-nats) for nats in both), abs=1e-6)


def test_several_spans_of_one_context_are_several_spans_apart(folder: Path) -> None:
    """Single tokens of one context, mixed with spans of other shapes, in any order."""
    model = TransformersModel(name=str(folder))
    spans = [Span(c, t) for c in ("in the end", "x", "the word: ") for t in ("1", "2", "the end", "9", "", "he")]
    spans += [Span("", "1"), Span("", "2")]
    random.Random(2).shuffle(spans)
    for span, together in zip(spans, model.loss(spans), strict=True):
        (apart,) = model.loss([span])
        assert isinstance(together, TargetLoss)
        assert isinstance(apart, TargetLoss)
        assert together.nats == pytest.approx(apart.nats, abs=1e-5), span
        assert list(together.nats) == pytest.approx(slow.token_losses(folder, span, LONG), abs=1e-5)
