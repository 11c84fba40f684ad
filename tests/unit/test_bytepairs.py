"""The quick way to a text's tokens gives the tokenizer's own, or says that it has none. The oracle is the tokenizer."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers", reason='needs the "local" extra')
pytest.importorskip("tiktoken", reason='needs the "local" extra')

import tiktoken
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import GPT2Tokenizer, PreTrainedTokenizerFast

from harness.tiny import MakeTiny
from tunesift import Span, TransformersModel
from tunesift.models import bytepairs
from tunesift.models.bytepairs import EXPRESSIONS, GPT2, LLAMA3, LONGEST, QWEN2, QuickEncoder, byte_pairs
from tunesift.models.likelihood import SpanEncoder
from tunesift.models.loading import put_away

ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())
BYTE_LEVEL = pre_tokenizers.ByteLevel(add_prefix_space=False)
SENTENCE = (
    "The quick brown fox doesn't jump over 1234 lazy dogs; it'll say: ``\\n\\n'' in Größe, наконец, "
    "最後に、終わり。 한국어 텍스트 اللغة ١٢٣ e\u0301 😀👍🏽 \t\tx  y   \r\n\r\n if (a[0] != b) { return f(x); }\n"
)
WORDS = SENTENCE.split(" ")
TEXTS = [
    "", " ", "  ", "\n", "a", "'s", "I'LL we'Ve he's ſ 'ſ", "x  y\n\n  z", "1234567 12 ½ ٣٤", "caf\u00e9 cafe\u0301", "\u00a0\u2003x",
    "\x00\x1f\x7f\x85", "a" * 500, "ab" * 400, " " * 700, "\r\n" * 99, "=" * 300, "漢字" * 200, "😀" * 50, "x\u0301" * 30,
]  # fmt: skip


def split(expression: str) -> Any:
    """How a tokenizer of the family of Llama 3 cuts texts into pieces."""
    pieces = pre_tokenizers.Split(Regex(expression), "isolated")
    return pre_tokenizers.Sequence([pieces, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def trained(splitter: Any = BYTE_LEVEL, size: int = 600, normalizer: Any = None) -> Tokenizer:
    """A byte-level tokenizer that has learnt from a few words."""
    plain = Tokenizer(models.BPE())
    plain.pre_tokenizer = splitter
    if normalizer is not None:
        plain.normalizer = normalizer
    chance = random.Random(0)
    texts = [" ".join(chance.choices(WORDS, k=30)) for _ in range(200)]
    learner = trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=ALPHABET, show_progress=False, special_tokens=["<s>"]
    )
    plain.train_from_iterator(texts, learner)
    return plain


def built(merges: Sequence[tuple[str, str]], more: Sequence[str] = (), **options: Any) -> Tokenizer:
    """A byte-level tokenizer of these merges, and of tokens that are in no merge."""
    words = [*ALPHABET, *dict.fromkeys([*(a + b for a, b in merges), *more])]
    plain = Tokenizer(models.BPE(vocab={w: n for n, w in enumerate(words)}, merges=list(merges), **options))
    plain.pre_tokenizer = BYTE_LEVEL
    return plain


def loaded(plain: Tokenizer, **options: Any) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=plain, eos_token="<s>", **options)


def naive(tokenizer: Any) -> Callable[[str], list[int]]:
    """Tiktoken on the whole vocabulary, and the tokenizer's own expression or GPT-2's: what must not be taken untried."""
    said = json.loads(tokenizer.backend_tokenizer.to_str())
    inner = (said["pre_tokenizer"] or {}).get("pretokenizers", [{}])[0]
    expression = inner.get("pattern", {}).get("Regex", GPT2)
    ranks = {bytes([byte]): byte + 10**6 for byte in range(256)}
    words = {w: n for w, n in said["model"]["vocab"].items() if all(c in ALPHABET for c in w)}
    ranks |= {w.translate(bytepairs._BYTES).encode("latin-1"): n for w, n in words.items()}
    return tiktoken.Encoding("naive", pat_str=expression, mergeable_ranks=ranks, special_tokens={}).encode_ordinary


def own(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def check(tokenizer: Any, texts: Sequence[str], least: float = 1.0) -> None:
    """The quick way exists, gives the tokenizer's own tokens, and gives them for at least a share of the texts."""
    way = byte_pairs(tokenizer)
    assert way is not None
    found = [way(text) for text in texts]
    assert sum(ids is not None for ids in found) >= least * len(texts)
    for text, ids in zip(texts, found, strict=True):
        assert ids is None or ids == own(tokenizer, text), text[:200]


@pytest.fixture(scope="session")
def gpt2(shared: Path) -> Any:
    folder = shared / "tiny_lm" / "gpt2_tokenizer"
    if not folder.is_dir():
        pytest.skip("GPT-2's own tokenizer is not here")
    return GPT2Tokenizer(vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt"))


@pytest.fixture(scope="session")
def real(shared: Path) -> list[str]:
    """Instructions and answers of several languages, and code."""
    places = ["alpaca/alpaca_sample.json", "alpaca_gpt4/alpaca_gpt4_zh.json", "code/evol_code_round1.json"]
    rows = [row for place in places for row in json.loads((shared / place).read_text("utf-8"))[:400]]
    for path in sorted((shared / "multilingual").glob("questions_*.jsonl")):
        rows += [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    return [text for row in rows for text in row.values() if isinstance(text, str)]


def test_gpt2s_own_tokenizer_is_cut_alike(gpt2: Any, real: list[str]) -> None:
    check(gpt2, [*TEXTS, *real])


@pytest.mark.parametrize("expression", sorted(EXPRESSIONS))
def test_every_expression_is_cut_alike(expression: str, real: list[str]) -> None:
    check(loaded(trained(split(expression))), [*TEXTS, *real[::4]])


@pytest.mark.parametrize("splitter", [BYTE_LEVEL, split(LLAMA3)], ids=["gpt2", "llama3"])
def test_any_text_is_cut_alike(splitter: Any) -> None:
    tokenizer = loaded(trained(splitter))
    way = byte_pairs(tokenizer)
    assert way is not None

    chance = random.Random(3)
    planes = [
        range(128),
        range(0x250),
        range(0x3000),
        range(0x1F300, 0x1FB00),
        range(0x4E00, 0x9FFF),
        range(0xF900, 0x10000),
    ]
    for _ in range(600):
        letters = [
            chr(n) for n in chance.choices(chance.choice(planes), k=chance.randrange(20)) if not 0xD800 <= n < 0xE000
        ]
        text = "".join(chance.sample([*letters, *chance.choices([*WORDS, *TEXTS[:8], " "], k=6)], k=len(letters) + 6))
        assert way(text) == own(tokenizer, text), text
    assert way("\U00020000") is None, "a place of rare letters, where nobody looks"


def test_two_texts_as_one_are_cut_alike_wherever_they_meet(real: list[str]) -> None:
    for expression, normalizer in ((GPT2, None), (LLAMA3, None), (bytepairs.GPT4O, normalizers.NFC())):
        tokenizer = loaded(trained(split(expression), normalizer=normalizer))
        way = byte_pairs(tokenizer)
        assert way is not None
        chance, known = random.Random(1), dict[str, list[int]]()
        some = [
            *TEXTS,
            *(text[:300] for text in chance.choices(real, k=300)),
            "<",
            "s> <s",
            "s>",
            "\u0301\u0323",
            "the e",
            " ",
            "a ",
        ]
        for _ in range(600):
            before, after = chance.choice(some), chance.choice(some)
            if chance.random() < 0.7:
                cut = chance.randrange(len(before) + 1)
                before, after = before[:cut], before[cut:]
            found = way.joint(before, after, known)
            assert found is None or found == (own(tokenizer, before + after), len(own(tokenizer, before))), (
                before,
                after,
            )
            assert (found is None) == ("<s>" in before + after)
        assert all(own(tokenizer, text) == ids for text, ids in known.items())


@pytest.mark.parametrize("expression", sorted(EXPRESSIONS))
def test_texts_fall_apart_at_any_gap(expression: str) -> None:
    pieces = split(expression)
    chance = random.Random(2)
    letters = "aB\u00e9\u5b571\u0663 \n\r\t'.-/#\u0301\u00a0\u2003\x1csStTlL"
    met = 0
    for _ in range(3000):
        text = "".join(chance.choices(letters + "     ", k=12))
        place = bytepairs.gap(text[: chance.randrange(13)])
        both = [piece for part in (text[:place], text[place:]) for piece, _ in pieces.pre_tokenize_str(part)]
        assert both == [piece for piece, _ in pieces.pre_tokenize_str(text)], (text, place)
        met += place > 0
    assert met > 1000


def test_the_same_end_is_cut_once() -> None:
    tokenizer = loaded(trained())
    way = byte_pairs(tokenizer)
    assert way is not None
    known: dict[str, list[int]] = {}
    for before in ("The fox. ### Response:", "A dog. ### Response:", "### Response:"):
        assert way.joint(before, "lazy", known) is not None
    assert set(known) == {"The fox. ###", "A dog. ###", "###", " Response:", " Response:lazy"}


def test_a_text_that_is_normalised_is_cut_as_what_it_becomes() -> None:
    tokenizer = loaded(trained(split(QWEN2), normalizer=normalizers.NFC()))
    check(tokenizer, [*TEXTS, "e\u0301 \u1112\u1161\u11ab \u0958 \u212b"])
    way = byte_pairs(tokenizer)
    assert way is not None
    assert way("cafe\u0301") == way("caf\u00e9") != [], "the letter and its accent are one letter"


def test_a_tokenizer_file_that_cuts_short_and_fills_up_is_asked_for_whole_texts_all_the_same() -> None:
    plain = trained()
    plain.enable_truncation(3)
    plain.enable_padding(length=50)
    check(loaded(plain), TEXTS)


def test_the_scorer_that_comes_with_the_package_splits_digits_and_is_left_alone() -> None:
    from tunesift.models.folders import EMBEDDED, tokenizer

    assert byte_pairs(tokenizer(EMBEDDED)) is None


AB_C = [("a", "b"), ("b", "c"), ("a", "bc")]
"""Merges by which `abc` ends as `ab`, `c`: the token `abc` never comes about."""


def test_a_token_that_no_merging_reaches_is_never_given() -> None:
    tokenizer = loaded(built(AB_C))
    texts = ["abc", "abcabc", "xabc", "bc", "bca"]
    assert any(naive(tokenizer)(text) != own(tokenizer, text) for text in texts)
    check(tokenizer, texts)


def test_a_token_in_no_merge_at_all_is_never_given() -> None:
    tokenizer = loaded(built([("a", "b")], more=["abx", "zz"]))
    assert naive(tokenizer)("zz") != own(tokenizer, "zz")
    check(tokenizer, ["zz", "abx", "zzabxab"])


def test_a_whole_piece_is_taken_where_the_tokenizer_takes_it() -> None:
    tokenizer = loaded(built([("a", "b"), ("b", "c")], more=["xyz", "abcd"], ignore_merges=True))
    check(tokenizer, ["xyz", "xyzxyz", "wxyz", "abcd", "abcdabcd", "abc", "bcd"])
    assert own(tokenizer, "xyz") != own(tokenizer, "xyzxyz")[:1]


def test_merges_that_list_every_way_to_a_token_are_cut_alike() -> None:
    """As files are made that come from tiktoken's: for each token all pairs that spell it, in the order of ids."""
    plain = trained(split(LLAMA3))
    model = json.loads(plain.to_str())["model"]
    words = model["vocab"]
    spelled = ((words[w], w[:n], w[n:]) for w in words for n in range(1, len(w)) if w != "<s>")
    pairs = sorted((n, words[a], words[b], a, b) for n, a, b in spelled if a in words and b in words)
    assert len(pairs) > len(model["merges"])
    plain.model = models.BPE(vocab=words, merges=[(a, b) for *_, a, b in pairs], ignore_merges=True)
    check(loaded(plain), [*TEXTS, *WORDS])


def changed(**fields: Any) -> Tokenizer:
    """A tokenizer that is known, with some of its description changed."""
    said = json.loads(built([("a", "b"), ("ab", "c")]).to_str())
    for name, value in fields.items():
        place = said["model"] if name in said["model"] else said
        place[name] = value
    return Tokenizer.from_str(json.dumps(said))


def out_of_order() -> Tokenizer:
    words = {w: n for n, w in enumerate([*ALPHABET, "bc", "ab"])}
    plain = Tokenizer(models.BPE(vocab=words, merges=[("a", "b"), ("b", "c")]))
    plain.pre_tokenizer = BYTE_LEVEL
    return plain


def marked() -> Tokenizer:
    words = {w: n for n, w in enumerate([*ALPHABET, *("##" + c for c in ALPHABET), "ab", "bc"])}
    plain = Tokenizer(models.BPE(vocab=words, merges=[("a", "##b")], continuing_subword_prefix="##"))
    plain.pre_tokenizer = BYTE_LEVEL
    return plain


def without_a_byte() -> Tokenizer:
    words = {w: n for n, w in enumerate(w for w in ALPHABET if w != "q")}
    plain = Tokenizer(models.BPE(vocab=words, merges=[]))
    plain.pre_tokenizer = BYTE_LEVEL
    return plain


def splitting(*splitters: Any) -> Tokenizer:
    plain = built([("1", "2"), ("Ġ", "a"), ("Ġ", "Ġ"), (".", "."), (".", "a"), ("a", "A")])
    plain.pre_tokenizer = pre_tokenizers.Sequence(list(splitters)) if len(splitters) > 1 else splitters[0]
    return plain


WHOLE = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
REFUSED = {
    "tiktoken would merge what no merge names": (built(AB_C, ignore_merges=True), "abcd"),
    "merges are not in the order of ids": (out_of_order(), "abc"),
    "a byte is missing": (without_a_byte(), "aqa"),
    "merges are left out by chance": (changed(dropout=1.0), "abc"),
    "tokens inside a word are marked": (marked(), "abc"),
    "the end of a word is marked": (changed(end_of_word_suffix="</w>"), "abc"),
    "digits are apart": (splitting(pre_tokenizers.Digits(individual_digits=True), BYTE_LEVEL), "12"),
    "a space is put before": (splitting(pre_tokenizers.ByteLevel(add_prefix_space=True)), "a"),
    "the text is one piece": (splitting(WHOLE), ".a"),
    "the expression is not a known one": (splitting(pre_tokenizers.Split(Regex(r"\."), "isolated"), BYTE_LEVEL), "..a"),
    "what is cut at is removed": (splitting(pre_tokenizers.Split(Regex(LLAMA3), "removed"), WHOLE), "a a"),
    "what is cut at is what is left": (splitting(pre_tokenizers.Split(Regex(LLAMA3), "isolated", True), WHOLE), "a. a"),
    "pieces grow backwards": (splitting(pre_tokenizers.Split(Regex(LLAMA3), "merged_with_previous"), WHOLE), "a  a"),
    "a second expression follows": (splitting(pre_tokenizers.Split(Regex(LLAMA3), "isolated"), BYTE_LEVEL), ".a"),
    "letters become small": (changed(normalizer={"type": "Lowercase"}), "ABC"),
    "letters become others": (changed(normalizer={"type": "NFKC"}), "ａｂ"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_tokenizer_of_another_kind_is_left_alone(case: str) -> None:
    plain, text = REFUSED[case]
    tokenizer = loaded(plain)
    if case not in ("what is cut at is what is left", "pieces grow backwards"):
        assert naive(tokenizer)(text) != own(tokenizer, text), "it would do no harm"
    assert byte_pairs(tokenizer) is None


def test_words_of_another_model_are_left_alone() -> None:
    unigram = Tokenizer(models.Unigram([("<unk>", 0.0), *((c, -1.0) for c in ALPHABET), ("ab", -0.5)], unk_id=0))
    unigram.pre_tokenizer = pre_tokenizers.Metaspace()
    words = Tokenizer(models.WordLevel({c: n for n, c in enumerate(ALPHABET)}, unk_token="a"))
    words.pre_tokenizer = BYTE_LEVEL
    assert [byte_pairs(loaded(plain)) for plain in (unigram, words, changed(byte_fallback=True))] == [None] * 3


def test_a_class_that_does_something_to_texts_first_is_left_alone() -> None:
    class Shouting(PreTrainedTokenizerFast):  # type: ignore[misc]
        def __call__(self, text: str, **options: Any) -> Any:
            return super().__call__(text.upper(), **options)

    plain = trained()
    assert byte_pairs(loaded(plain)) is not None
    assert byte_pairs(Shouting(tokenizer_object=plain, eos_token="<s>")) is None


def test_what_is_no_quick_tokenizer_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert byte_pairs(object()) is None
    tokenizer = loaded(trained())
    monkeypatch.setattr(bytepairs, "find_spec", lambda name: None)
    assert byte_pairs(tokenizer) is None, "tiktoken is not installed"


@pytest.mark.parametrize("name", ["<s>", "quick", "caf\u00e9", "caf\u00e9 x", "no\u00ebl"])
def test_a_text_that_names_an_added_token_is_the_tokenizers_own_affair(name: str) -> None:
    plain = trained(split(QWEN2), normalizer=normalizers.NFC())
    plain.add_tokens(
        [
            AddedToken("quick"),
            AddedToken("caf\u00e9", normalized=True),
            AddedToken("cafe\u0301 x", normalized=False),
            AddedToken("noe\u0308l", normalized=True),
        ]
    )
    tokenizer = loaded(plain)
    way = byte_pairs(tokenizer)
    assert way is not None
    for text in (name, f"the {name}.", f"the {name.replace(chr(0xE9), 'e' + chr(0x301))}."):
        assert way(text) is None
    assert way("caf\u00e8 x") == own(tokenizer, "caf\u00e8 x")


def test_a_first_text_that_names_an_added_token_only_by_itself_is_the_tokenizers_own_affair() -> None:
    plain = trained(split(QWEN2), normalizer=normalizers.NFC())
    plain.add_tokens([AddedToken("\u00e9", normalized=True)])
    tokenizer = loaded(plain)
    way = byte_pairs(tokenizer)
    assert way is not None
    assert own(tokenizer, "e\u0301\u0323") == way("e\u0301\u0323"), "with a dot below it is another letter"
    assert way.joint("e\u0301", "\u0323", {}) is None


def test_a_character_that_two_libraries_treat_otherwise_is_the_tokenizers_own_affair() -> None:
    tokenizer = loaded(trained())
    ranks = {bytes([byte]): byte for byte in range(256)}
    others = GPT2.replace(r"?\p{L}+", r"?[\p{L}&&[^é子]]+").replace(r"[^\s\p{L}\p{N}]", r"(?:[^\s\p{L}\p{N}]|[é子])")
    way = bytepairs.BytePairs(tokenizer.backend_tokenizer, others, ranks)
    known = [text for text in ("a", "è", "é", "aè", "aé", "子", "本子", "本", "ж") if way(text) is not None]
    assert known == ["a", "è", "aè", "本", "ж"]
    assert way("字") is None, "ideographs of one block are known by a sample"
    finer = GPT2.replace("'d|", "'d|é|").replace(r"\p{L}+", r"[\p{L}&&[^é]]+")
    apart = bytepairs.BytePairs(trained(split(finer)), GPT2, ranks)
    assert [apart("é"), apart("aé")] == [None] * 2, "here the tokenizer has the smaller pieces"
    plain = trained(normalizer=normalizers.NFC())
    assert bytepairs.BytePairs(plain, others, ranks)("cafe\u0301") is None, "normalised, it is an é"
    assert bytepairs.BytePairs(plain, others, ranks)("cafe\u0300") is not None


def test_a_library_that_treats_plain_letters_otherwise_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = loaded(trained())
    monkeypatch.setattr(bytepairs, "GPT2", GPT2.replace(r"\s+(?!\S)|", ""))
    assert naive(tokenizer)("x  y") == own(tokenizer, "x  y")
    assert byte_pairs(tokenizer) is None


def test_half_a_surrogate_pair_fails_as_it_does_without() -> None:
    tokenizer = loaded(trained())
    way = byte_pairs(tokenizer)
    assert way is not None
    assert way("a\ud800b") is None
    said = []
    for quick in (None, way):
        with pytest.raises((TypeError, UnicodeEncodeError)) as caught:
            SpanEncoder(tokenizer, 99, quick)(Span("x", "a\ud800b"))
        said.append((caught.type, str(caught.value)))
    assert said[0] == said[1]


@pytest.mark.parametrize("letter", [" ", "\n", "a", "A", "!", "1", "é", "字", "\u0301", " \n", "a ", "\r\n x"])
@pytest.mark.parametrize("expression", [GPT2, LLAMA3, bytepairs.QWEN35, bytepairs.GPT4O])
def test_the_longest_text_is_cut_alike_and_a_longer_one_not_at_all(letter: str, expression: str) -> None:
    tokenizer = loaded(trained(split(expression)))
    way = byte_pairs(tokenizer)
    assert way is not None
    text = (letter * LONGEST)[:LONGEST]
    assert way(text) == own(tokenizer, text)
    assert way(text + "x") is None


def quick_of(tokenizer: Any, monkeypatch: pytest.MonkeyPatch, worth: int) -> Iterator[int]:
    """How often a quick way was looked for, after each of some texts."""
    looked = []
    monkeypatch.setattr(bytepairs, "WORTH", worth)
    monkeypatch.setattr(bytepairs, "byte_pairs", lambda t: looked.append(t) or byte_pairs(t))
    quick = QuickEncoder(tokenizer)
    for text in ("a", "b", "ab", "the", "x y"):
        assert quick(text) in (None, own(tokenizer, text))
        assert (quick(text) is None) == (not looked or byte_pairs(tokenizer) is None)
        yield len(looked)


def test_a_quick_way_is_looked_for_once_and_only_after_many_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(quick_of(loaded(trained()), monkeypatch, 4)) == [0, 0, 1, 1, 1]
    assert list(quick_of(loaded(built(AB_C, ignore_merges=True)), monkeypatch, 4)) == [0, 0, 1, 1, 1]
    assert list(quick_of(loaded(trained()), monkeypatch, 10**9)) == [0] * 5


def test_losses_are_the_same_with_and_without(make_tiny: MakeTiny, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_tiny("llama")
    plain = Tokenizer.from_file(str(folder / "tokenizer.json"))
    plain.pre_tokenizer = BYTE_LEVEL
    plain.save(str(folder / "tokenizer.json"))
    texts = [f"{a} then {b}" for a in WORDS[:12] for b in ("the inner", "<s> thing", "cafe\u0301\n\nthe", "...")]
    seams = [{"seam": seam, "bos": bos} for seam in ("joint", "separate") for bos in ("always", "tokenizer")]
    spans = [
        Span(text, target, **kind) for text in texts for target in ("the thing", "\u00e9t\u00e9 12") for kind in seams
    ]
    used = []
    monkeypatch.setattr(bytepairs, "byte_pairs", lambda t: used.append(byte_pairs(t)) or used[-1])
    found = []
    for worth in (10**9, 0):
        put_away()
        monkeypatch.setattr(bytepairs, "WORTH", worth)
        found.append(TransformersModel(name=str(folder)).loss(spans))
    assert len(used) == 1
    assert used[0] is not None
    assert found[0] == found[1]
