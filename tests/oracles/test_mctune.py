"""MCTune held against its acceptance oracles; what is expected was worked out by hand, or by code of this file."""

from __future__ import annotations

import itertools
import math
import random
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tunesift import Message, RecipeError, Record, Settings
from tunesift.methods.mctune_controls import (
    MOST_REDRAWS,
    PREAMBLE,
    block,
    draw_subset,
    holds_control,
    is_valid,
    number_text,
    parse_block,
    perturbed,
)
from tunesift.methods.mctune_features import FEATURES, Analyser, MeasureResponse, measured
from tunesift.methods.mctune_taggers import ScriptedTagger, SpacyTagger
from tunesift.methods.mctune_words import Token, compat_syllables, read_words, syllables
from tunesift.records import Failure, Score

TEXT = "The quick brown foxes jump, and the lazy dogs sleep. Dogs bark loudly!"
TAGGED = {
    "the": "the DET", "quick": "quick ADJ", "brown": "brown ADJ", "foxes": "fox NOUN", "jump": "jump VERB", "and": "and CCONJ",
    "lazy": "lazy ADJ", "dogs": "dog NOUN", "sleep": "sleep VERB", "bark": "bark VERB", "loudly": "loudly ADV",
}  # fmt: skip
FORMS = [said.split() for said in ("The quick brown foxes jump , and the lazy dogs sleep .", "Dogs bark loudly !")]
GOLDEN = [
    Token(form, *TAGGED.get(form.lower(), f"{form} PUNCT").split(), number)  # type: ignore[call-arg, arg-type]
    for number, forms in enumerate(FORMS)
    for form in forms
]
KEYS = [feature.key for feature in FEATURES]
GRAMMAR = {"n_noun": 3, "n_verb": 3, "n_adj": 3, "n_unoun": 2, "n_uverb": 3, "n_uadj": 3, "simp_noun_var": 0.667,
           "simp_verb_var": 1.0, "simp_adj_var": 1.0}  # fmt: skip
OURS = {"t_word": 13, "t_uword": 11, "simp_ttr": 0.846, "fkre": 96.114, "rt_average": 0.054}
COMPAT = {"t_word": 16, "t_uword": 14, "simp_ttr": 0.875, "fkre": 119.403, "rt_average": 0.067}
POS = Analyser(profile="pos", tagger=ScriptedTagger(words=TAGGED))


# --- 1: the annotated text -------------------------------------------------------------------------------------------


def test_oracle_1_the_annotated_text_has_the_published_measurements() -> None:
    assert measured(GOLDEN) == GRAMMAR | OURS
    assert measured(GOLDEN, "compat") == GRAMMAR | COMPAT
    assert list(measured(GOLDEN)) == KEYS


def test_oracle_1_our_words_sentences_and_syllables_of_it_need_no_annotation() -> None:
    assert Analyser()(TEXT) == OURS
    assert [token.form for token in read_words(TEXT)] == [f for f in itertools.chain(*FORMS) if f.isalpha()]
    assert sum(syllables(form) for form in itertools.chain(*FORMS) if form.isalpha()) == 16
    assert compat_syllables(itertools.chain(*FORMS)) == 15


def test_oracle_1_a_tagger_gives_what_the_annotation_does() -> None:
    assert POS(TEXT) == GRAMMAR | OURS
    assert Analyser(profile="pos", tagger=POS.tagger, counting="compat")(TEXT) == GRAMMAR | COMPAT


@pytest.mark.parametrize(("forms", "count"), [("the the the", 1), ("apple", 1), ("make the cake", 2)])
def test_the_syllables_of_the_reference_are_wrong_as_the_paper_has_them(forms: str, count: int) -> None:
    assert compat_syllables(forms.split()) == count
    assert sum(map(syllables, forms.split())) > count


def test_the_reference_gives_go_and_a_full_stop_162_505() -> None:
    found = measured([Token("Go", "go", "VERB", 0), Token(".", ".", "PUNCT", 0)], "compat")
    assert found["fkre"] == 162.505
    assert measured([Token("Go", "go", "VERB", 0), Token(".", ".", "PUNCT", 0)])["fkre"] == 121.22


def test_proper_nouns_and_auxiliaries_are_neither_nouns_nor_verbs() -> None:
    found = measured([Token("Ann", "Ann", "PROPN", 0), Token("is", "be", "AUX", 0), Token("home", "home", "NOUN", 0)])
    assert (found["n_noun"], found["n_verb"]) == (1, 0)
    assert found["simp_verb_var"] == 0.0


# --- 2: the order of what is asked for --------------------------------------------------------------------------------


def test_oracle_2_any_texts_in_any_order_measure_as_each_alone() -> None:
    texts = [TEXT, "Go.", "", "the the the", TEXT, "Cats sleep. Dogs bark loudly!"]
    alone = [POS(text) for text in texts]
    draw = random.Random(2)
    for _ in range(20):
        order = [draw.randrange(len(texts)) for _ in range(10)]
        assert [POS(texts[n]) for n in order] == [alone[n] for n in order]
    records = [Record(str(n), (Message("user", "?"), Message("assistant", text))) for n, text in enumerate(texts)]
    told = MeasureResponse(analyser=POS)(records)
    assert [score.parts for score in told if isinstance(score, Score)] == [
        a if t else {} for a, t in zip(alone, texts, strict=True)
    ]


def test_oracle_2_any_subset_equals_the_full_extraction_since_there_is_no_other() -> None:
    """What a row asks for is picked from all measurements; profile core, which measures fewer, agrees on those."""
    whole = POS(TEXT)
    for few in itertools.combinations(KEYS, 2):
        assert {key: POS(TEXT)[key] for key in reversed(few)} == {key: whole[key] for key in few}
    plain = Analyser()("Cats sleep. Dogs bark loudly!")
    assert all(POS("Cats sleep. Dogs bark loudly!")[key] == value for key, value in plain.items())


# --- 3: numbers --------------------------------------------------------------------------------------------------------

WRITTEN = {120: "120", 45.0: "45", 0.875: "0.88", 119.403: "119.4", 0.004: "0.0"}


def test_oracle_3_numbers_are_written_as_published_and_read_back_rounded() -> None:
    assert {value: number_text(value) for value in WRITTEN} == WRITTEN
    for value in (*WRITTEN, *(random.Random(3).uniform(-100, 500) for _ in range(2000))):
        read = parse_block(f"[fkre: {number_text(value)}]")
        assert read == {"fkre": round(value, 2)}


def test_oracle_3_a_block_is_written_in_the_order_of_the_list_and_read_back() -> None:
    values = {"rt_average": 0.5, "fkre": 65.2, "t_word": 120.0, "simp_ttr": 0.875}
    assert block(values) == "[t_word: 120] [simp_ttr: 0.88] [fkre: 65.2] [rt_average: 0.5]"
    assert parse_block(block(values)) == values | {"simp_ttr": 0.88}
    assert holds_control(block(values))


@pytest.mark.parametrize("text", [
    "", " [t_word: 1]", "[t_word: 1] ", "[t_word:1]", "[t_word: 1][fkre: 2]", "[t_word: 1]  [fkre: 2]", "[words: 1]", "[T_word: 1]",
    "[t_word: 1] [t_word: 2]", "[fkre: 2] [t_word: 1]", "[t_word: 01]", "[t_word: 1.50]", "[t_word: 1.234]", "[t_word: 1.]",
    "[t_word: .5]", "[t_word: +1]", "[t_word: -0]", "[fkre: -0.0]", "[t_word: 1e3]", "[t_word: nan]", "[t_word: 1,000]", "[t_word: 1]\n",
    "[t_word: ]", "[t_word: 1] and", "[t_word : 1]", "[t_word: ١]", "[t_word: 1]\t[fkre: 2]",
])  # fmt: skip
def test_oracle_3_nothing_else_is_read_as_a_block(text: str) -> None:
    assert isinstance(parse_block(text), Failure)


@pytest.mark.parametrize("text", ["Sort [t_word: 1].", "[ fkre : 2]", "[T_WORD:", "a [n_noun:x] b"])
def test_text_that_could_be_taken_for_a_control_is_seen(text: str) -> None:
    assert holds_control(text)
    assert not holds_control(text.replace("[", "("))


def test_the_preamble_names_every_tag_with_its_meaning() -> None:
    assert all(f"[{feature.key}] {feature.meaning}" in PREAMBLE for feature in FEATURES)
    assert len(FEATURES) == 14


# --- 4: targets --------------------------------------------------------------------------------------------------------

FOUND = {"t_word": 100, "t_uword": 60, "simp_ttr": 0.6, "n_noun": 30, "n_verb": 15, "n_adj": 10, "n_unoun": 20, "n_uverb": 12,
         "n_uadj": 8, "simp_noun_var": 0.667, "simp_verb_var": 0.8, "simp_adj_var": 0.8, "fkre": 60.5, "rt_average": 0.417}  # fmt: skip
SD = {"t_word": 80.0, "t_uword": 40.0, "n_noun": 25.0, "n_verb": 12.0, "n_adj": 9.0, "n_unoun": 15.0, "n_uverb": 9.0,
      "n_uadj": 7.0, "fkre": 20.0}  # fmt: skip
CORE_FOUND = {key: FOUND[key] for key in OURS}


class Steady(random.Random):
    """Every normal draw is the same."""

    def __init__(self, value: float) -> None:
        super().__init__(0)
        self.value, self.asked = value, 0

    def gauss(self, mu: float = 0.0, sigma: float = 1.0) -> float:
        self.asked += 1
        return mu + sigma * self.value


def allowed(v: Mapping[str, float]) -> bool:
    """The conditions, one after the other, as they are published."""
    return not (
        v["t_word"] <= 0 or v["t_word"] < v["n_noun"] + v["n_verb"] + v["n_adj"] or v["t_word"] < v["t_uword"]
        or v["t_uword"] <= 0 or v["n_noun"] < v["n_unoun"] or v["n_verb"] < v["n_uverb"] or v["n_adj"] < v["n_uadj"]
        or min(v["n_unoun"], v["n_uverb"], v["n_uadj"]) < 0 or v["t_uword"] < v["n_unoun"] + v["n_uverb"] + v["n_uadj"]
        or v["fkre"] > 121.22
    )  # fmt: skip


def test_oracle_4_at_sigma_0_the_targets_are_the_measurements_as_they_are_written() -> None:
    told = perturbed(FOUND, SD, 0.0, random.Random(0))
    assert told.values == FOUND | {"simp_noun_var": 0.67, "rt_average": 0.42}
    assert not told.fell_back


def test_oracle_4_a_deviation_of_80_and_a_draw_of_a_half_make_100_to_104() -> None:
    assert perturbed(CORE_FOUND, SD, 0.1, Steady(0.5)).values == {
        "t_word": 104, "t_uword": 62, "simp_ttr": 0.6, "fkre": 61.5, "rt_average": 0.43,
    }  # fmt: skip


def test_oracle_4_every_one_of_10_000_draws_is_valid_as_it_is_written() -> None:
    stream = random.Random(4)
    told = [perturbed(FOUND, SD, 0.1, stream) for _ in range(10_000)]
    assert all(allowed(t.values) and not t.fell_back for t in told)
    assert all(float(t.values[key]).is_integer() for t in told for key in SD if key != "fkre")
    for t in told[:500]:
        v = t.values
        assert (v["simp_ttr"], v["rt_average"]) == (
            pytest.approx(v["t_uword"] / v["t_word"], abs=0.0056), pytest.approx(v["t_word"] / 240, abs=0.0056),
        )  # fmt: skip
    for key in ("t_word", "fkre"):  # far from every border, so that nothing is cut off
        shift = statistics.fmean(t.values[key] for t in told) - FOUND[key]
        assert abs(shift) < 4 * 0.1 * SD[key] / math.sqrt(10_000) + 0.01


def test_oracle_4_what_is_valid_before_rounding_and_not_after_is_drawn_anew() -> None:
    """10.4 words with 3.6 nouns, 3.6 verbs and 2.6 adjectives are 10 with 4, 4 and 3."""
    before = {"t_word": 10.4, "t_uword": 10.4, "n_noun": 3.6, "n_verb": 3.6, "n_adj": 2.6, "n_unoun": 1, "n_uverb": 1,
              "n_uadj": 1, "fkre": 50.0}  # fmt: skip
    assert allowed(before)
    assert is_valid(before)
    after = {key: round(value) for key, value in before.items()}
    assert not allowed(after)
    assert not is_valid(after)


def test_oracle_4_where_nothing_valid_is_drawn_the_measurements_stand_and_it_is_told() -> None:
    stream = Steady(-40.0)  # 320 words fewer than 100, each time
    told = perturbed(FOUND, SD, 0.1, stream)
    assert told.fell_back
    assert told.values == perturbed(FOUND, SD, 0.0, random.Random(0)).values
    assert stream.asked == MOST_REDRAWS * len(SD)


def test_oracle_4_the_same_stream_gives_the_same_targets() -> None:
    first, again, other = (perturbed(FOUND, SD, 0.1, random.Random(seed)) for seed in (1, 1, 2))
    assert first == again != other


def test_our_validity_is_the_published_one() -> None:
    draw = random.Random(8)
    kinds = Counter[bool]()
    for _ in range(20_000):
        v = {key: draw.randint(-1, 4) for key in SD} | {"t_word": draw.randint(0, 12), "t_uword": draw.randint(0, 9),
                                                        "fkre": draw.choice((50, 121.22, 121.23))}  # fmt: skip
        assert is_valid(v) == allowed(v)
        kinds[allowed(v)] += 1
    assert min(kinds.values()) > 100


# --- 5: which controls a row has ---------------------------------------------------------------------------------------


def test_oracle_5_sizes_are_uniform_and_each_feature_has_its_share_of_50_000_rows() -> None:
    drawn = [draw_subset(KEYS, 5, random.Random(seed)) for seed in range(50_000)]
    sizes = Counter(map(len, drawn))
    assert set(sizes) == {1, 2, 3, 4, 5}
    assert all(abs(count / 50_000 - 0.2) < 0.01 for count in sizes.values())
    shares = Counter(itertools.chain(*drawn))
    assert all(abs(shares[key] / 50_000 - 3 / 14) < 0.01 for key in KEYS)
    places = [[KEYS.index(key) for key in few] for few in drawn]
    assert all(a < b for few in places for a, b in itertools.pairwise(few))


# --- 8: what does not run -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Untagged(Settings):
    """Knows words and sentences, and as much of the rest as it is told."""

    lemmas: bool = False

    def __call__(self, text: str) -> Sequence[Token]:
        return [Token(form, form if self.lemmas else "", "" if self.lemmas else "NOUN", 0) for form in text.split()]


@pytest.mark.parametrize(("tagger", "missing"), [
    (Untagged(lemmas=True), r"tags no parts of speech \(upos\)"), (Untagged(), r"gives no lemmas \(lemma\)"),
    (ScriptedTagger(otherwise=""), r"tags no parts of speech \(upos\)"),
])  # fmt: skip
def test_oracle_8_an_untagged_text_is_refused_by_the_name_of_what_is_missing(tagger: object, missing: str) -> None:
    analyser = Analyser(profile="pos", tagger=tagger)  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match=missing):
        analyser("Cats sleep")
    assert analyser("?!")["t_word"] == 0  # no word, so that nothing is missing


def test_oracle_8_the_profile_with_parts_of_speech_does_not_begin_without_a_tagger() -> None:
    with pytest.raises(RecipeError, match="needs parts of speech"):
        Analyser(profile="pos")
    with pytest.raises(RecipeError, match=r"add analyser\.profile=pos"):
        Analyser(tagger=ScriptedTagger())
    with pytest.raises(RecipeError, match=r"add analyser\.profile=pos"):
        Analyser(counting="compat")


def test_analysers_that_count_otherwise_have_other_names() -> None:
    others = [
        Analyser(), POS, Analyser(profile="pos", tagger=ScriptedTagger()),
        Analyser(profile="pos", tagger=POS.tagger, counting="compat"),
    ]  # fmt: skip
    assert len({analyser.analyzer_id for analyser in others}) == len(others)
    assert Analyser().analyzer_id == "tunesift/1/core"


def test_oracle_8_a_blank_pipeline_of_spacy_is_refused_and_one_that_tags_counts(tmp_path: Path) -> None:
    spacy = pytest.importorskip("spacy", reason='needs the "pos" extra')
    blank, cut, whole = (str(tmp_path / name) for name in ("blank", "cut", "whole"))
    spacy.blank("en").to_disk(blank)
    with pytest.raises(RecipeError, match=r"finds no sentences \(sent_start\)"):
        Analyser(profile="pos", tagger=SpacyTagger(name=blank))(TEXT)
    pipeline = spacy.blank("en")
    pipeline.add_pipe("sentencizer")
    pipeline.to_disk(cut)
    with pytest.raises(RecipeError, match=r"tags no parts of speech \(upos\)"):
        Analyser(profile="pos", tagger=SpacyTagger(name=cut))(TEXT)
    ruler = pipeline.add_pipe("attribute_ruler")
    for form, said in {**TAGGED, ",": ", PUNCT", ".": ". PUNCT", "!": "! PUNCT"}.items():
        lemma, upos = said.split()
        ruler.add([[{"LOWER": form}]], {"LEMMA": lemma, "POS": upos})
    pipeline.to_disk(whole)
    tagger = SpacyTagger(name=whole)
    assert Analyser(profile="pos", tagger=tagger)(TEXT) == GRAMMAR | OURS
    assert Analyser(profile="pos", tagger=tagger, counting="compat")(TEXT) == GRAMMAR | COMPAT
    assert (
        Analyser(profile="pos", tagger=tagger).analyzer_id == f"spacy:en_pipeline-0.0.0+spacy-{spacy.__version__}/1/pos"
    )
    with pytest.raises(RecipeError, match="spaCy loads no pipeline"):
        Analyser(profile="pos", tagger=SpacyTagger(name=str(tmp_path / "none")))(TEXT)


# --- our own words ---------------------------------------------------------------------------------------------------------


def test_sentences_end_where_a_reader_ends_them() -> None:
    text = (
        'Mr. Smith paid $3.50 to J. K. Rowling. "Is it so?" he asked. It\'s 1,000 km! See e.g. this one.\n\nSteps:\n1. Eat well. '
        "Sleep.\n2. Don't smoke\n- a well-known thing\n\n# Title\nWait... what? Yes (really). 3 cats."
    )
    found = {n: [t.form for t in group] for n, group in itertools.groupby(read_words(text), key=lambda t: t.sentence)}
    assert list(found.values()) == [
        ["Mr", "Smith", "paid", "3.50", "to", "J", "K", "Rowling"], ["Is", "it", "so", "he", "asked"], ["It's", "1,000", "km"],
        ["See", "e.g.", "this", "one"], ["Steps"], ["Eat", "well"], ["Sleep"], ["Don't", "smoke"], ["a", "well-known", "thing"],
        ["Title"], ["Wait", "what"], ["Yes", "really"], ["3", "cats"],
    ]  # fmt: skip


COUNTED = {
    1: "the make makes whole belle bathes rules loved played tried walked cake be here used health times", 2: (
        "foxes apple apples churches needed being table people trying wanted cages faces nation little because create places "
        "didn't couldn't well-known million"
    ), 3: "media various computer instruction important example energy audio provided opinion", 4: "education technology environment",
    5: "readability",
}  # fmt: skip


def test_syllables_of_common_words_are_those_of_a_dictionary() -> None:
    wrong = {word: syllables(word) for n, words in COUNTED.items() for word in words.split() if syllables(word) != n}
    assert not wrong
