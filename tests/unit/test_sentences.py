"""Sentence encoders: the vectors of a tiny BERT made on the spot, against the pooling written out by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason='needs the "local" extra')
pytest.importorskip("sentence_transformers", reason='needs the "embed" extra')
import transformers  # noqa: E402

from harness.tiny import encoder  # noqa: E402
from tunesift import (  # noqa: E402
    Dataset,
    Diverse,
    Local,
    Message,
    ModelUnavailable,
    Record,
    Run,
    Select,
    SentenceModel,
)

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "sea", "is", "salt", "rain", "sings", "all", "night"]
TEXTS = ["the sea is salt", "rain", "", "rain sings all night the sea sings all night the rain is salt", "the stone"]
MOST = 10
"""Tokens that the encoder reads, both marks included."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder as its authors lay it out: a BERT, the mean over its tokens, length 1."""
    return encoder(tmp_path_factory.mktemp("tiny-encoder"), WORDS, MOST)


def write(path: Path, value: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value))


def by_hand(folder: Path, text: str) -> list[float]:
    """The mean of the last layer over a text's own tokens, brought to length 1; alone, without padding, in float64."""
    known = {word: number for number, word in enumerate(WORDS)}
    words = [known.get(word, known["[UNK]"]) for word in text.split()][: MOST - 2]
    ids = [known["[CLS]"], *words, known["[SEP]"]]
    model = transformers.BertModel.from_pretrained(folder).double().eval()
    with torch.no_grad():
        layer = model(torch.tensor([ids])).last_hidden_state[0].tolist()
    mean = [sum(column) / len(ids) for column in zip(*layer, strict=True)]
    length = math.sqrt(sum(x * x for x in mean))
    return [x / length for x in mean]


@pytest.mark.parametrize("batch", [1, 2, 64])
def test_vectors_are_the_mean_over_a_text_s_own_tokens_at_any_batch(folder: Path, batch: int) -> None:
    found = SentenceModel(name=str(folder), device="cpu", batch=batch).embed(TEXTS)
    assert len(TEXTS[3].split()) > MOST
    for text, vector in zip(TEXTS, found, strict=True):
        assert vector == pytest.approx(by_hand(folder, text), abs=2e-6), text
        assert math.fsum(x * x for x in vector) == pytest.approx(1, abs=1e-5)


def test_an_encoder_is_known_by_its_weights_and_by_how_it_pools(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    for file in (f for f in folder.rglob("*") if f.is_file()):
        target = copy / file.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())
    assert SentenceModel(name=str(copy)).identity() == SentenceModel(name=str(folder)).identity()
    write(copy / "1_Pooling" / "config.json", {"word_embedding_dimension": 16, "pooling_mode_cls_token": True})
    assert SentenceModel(name=str(copy)).identity() != SentenceModel(name=str(folder)).identity()


def test_superfiltering_d_names_its_encoder_in_every_reason(folder: Path, tmp_path: Path) -> None:
    said = ["the sea is salt", "the sea is salt all night", "rain sings", "rain sings all night", "the night", "salt"]
    data = Dataset.of([Record(f"r{n}", (Message("user", "all"), Message("assistant", s))) for n, s in enumerate(said)])
    keep = Diverse(fraction=0.5, candidates=None, embedder=SentenceModel(name=str(folder), device="cpu"))
    with Run(tmp_path, Local()) as run:
        result = Select(keep=keep)(data, run)
    assert [d.action for d in result.decisions].count("keep") == 3
    assert all(f"facility location by sentence-transformers {folder.name}" in d.reason for d in result.decisions)


def test_a_folder_that_is_no_encoder_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match=r'nowhere" is not there; give a folder with config.json or a hub id'):
        SentenceModel(name=str(tmp_path / "nowhere")).embed(["x"])
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelUnavailable, match="cannot be loaded as a sentence encoder"):
        SentenceModel(name=str(tmp_path)).embed(["x"])


def test_a_device_that_is_not_there_is_a_sentence(folder: Path) -> None:
    with pytest.raises(ModelUnavailable, match=r'^device: "gpu7" is not to be had here \(.+\); write auto or cpu\.$'):
        SentenceModel(name=str(folder), device="gpu7").embed(["x"])


def test_weights_that_could_run_code_are_not_loaded(folder: Path, tmp_path: Path) -> None:
    """A pickle in the place of the weights: opening it would leave a file behind."""
    copy, canary = tmp_path / "pickled", tmp_path / "canary"
    for file in (f for f in folder.rglob("*") if f.is_file() and f.suffix != ".safetensors"):
        target = copy / file.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())
    (copy / "pytorch_model.bin").write_bytes(f"cos\nsystem\n(S'touch {canary}'\ntR.".encode())
    with pytest.raises(ModelUnavailable, match=r"cannot be loaded as a sentence encoder .*model\.safetensors"):
        SentenceModel(name=str(copy)).embed(["x"])
    assert not canary.exists()
