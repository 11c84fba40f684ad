"""What a training on images takes as its reference, and which rows it can do without."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.seeing import job, llava, pair, picture_file, pictured, trained
from tunesift import Completion, Dataset, Failure, LoRA, Sampling, VisionDPO, VisionModel
from tunesift.models import vision

pytest.importorskip("trl", reason='needs the "train" extra')


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """What TRL, PEFT and transformers say to one another is theirs."""
    with warnings.catch_warnings():
        for kind in (FutureWarning, DeprecationWarning, UserWarning):
            warnings.simplefilter("ignore", kind)
        yield


def test_all_weights_of_an_adapted_student_are_held_to_the_student_and_not_to_what_it_was_made_of(
    tmp_path: Path,
) -> None:
    """A second round: the adapters of the first are a part of the reference, so that its first loss is ln 2."""
    pictured(tmp_path / "data", 2)
    base = VisionModel(name=str(llava(tmp_path / "llava")), device="cpu", images=tmp_path / "data")
    data = Dataset.of([pair(f"p{n}", f"{n}.png", rejected="A dog. " * (n + 1)) for n in range(2)])
    once = VisionDPO(steps=3, batch=2, learning_rate=1e-2, warm_up=0.0, lora=LoRA(rank=4, alpha=8, dropout=0.0))
    first = trained(job(tmp_path / "one", base, once, data))
    assert first.history[-1]["loss"] < math.log(2) - 1e-3  # the adapters have learned something
    adapted = VisionModel(name=str(tmp_path / "one" / "model"), device="cpu", images=tmp_path / "data")
    again = VisionDPO(steps=1, batch=2, learning_rate=1e-3, warm_up=0.0, lora=None)
    found = trained(job(tmp_path / "two", adapted, again, data))
    assert found.history[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)


def squinting(folder: Path) -> tuple[Any, Any]:
    """The tiny LLaVA, before whose images the processor of a Qwen2-VL is asked whether it takes them."""
    import transformers

    eye = transformers.Qwen2VLImageProcessorPil(min_pixels=28 * 28, max_pixels=56 * 56)

    class Squinting(transformers.CLIPImageProcessorPil):  # type: ignore[misc]  # a class of a library without types
        def __call__(self, images: Any, *more: Any, **named: Any) -> Any:
            eye(images=images, return_tensors="pt")
            return super().__call__(images, *more, **named)

    processor = transformers.AutoProcessor.from_pretrained(folder)
    processor.image_processor = Squinting(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    return transformers.AutoModelForImageTextToText.from_pretrained(folder), processor


def test_a_sound_image_that_the_model_s_processor_does_not_take_costs_its_row_and_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunesift.tuning.vision_dpo_trainer import VisionDPOLearner

    pictured(tmp_path / "data", 1)
    picture_file(tmp_path / "data" / "thin.png", size=(300, 1))
    student = VisionModel(name=str(llava(tmp_path / "llava")), device="cpu", images=tmp_path / "data")
    model, processor = squinting(tmp_path / "llava")
    monkeypatch.setattr(vision, "load", lambda *_: (model, processor))
    pairs = [pair("sound", "0.png"), pair("thin", "thin.png")]
    said = student.chat([one.prompt for one in pairs], Sampling(max_tokens=2))
    encode = VisionDPOLearner().encoder(job(tmp_path / "out", student, VisionDPO(), Dataset.of(pairs)), processor)
    why = "the model's processor takes no such image (absolute aspect ratio must be smaller than 200, got 300.0)"
    assert isinstance(said[0], Completion)
    assert said[1] == encode(pairs[1]) == Failure("unreadable", why)
    assert not isinstance(encode(pairs[0]), Failure)
