"""Which parts of a model that reads images are trained: what leads to language, and the language model's layers?"""

from __future__ import annotations

import re
from typing import Any

from tunesift.errors import RecipeError, TuningError, shown
from tunesift.models.loading import outline
from tunesift.models.vision import VisionModel
from tunesift.tuning.base import LoRA
from tunesift.tuning.vision_dpo import VisionDPO

_PROJECTORS = (
    "multi_modal_projector", "mm_projector", "connector", "aligner", "embed_vision", "projector", "language_projection",
    "image_to_text_projection", "image_projector", "vision_projection", "vision_adapter", "resampler_model", "merger",
    "deepstack_merger_list", "patch_merger", "downsample",
)  # fmt: skip
"""What models of transformers 5.23 call what leads from images to language; GLM-V's last convolution is part of it."""
_HEAD = "lm_head"


def check_parts(student: VisionModel, tuner: VisionDPO) -> None:
    """Raise `RecipeError` where a training would find no part of the student to train, by the model as its config.json
    has it, without any weights; of one that cannot be built so, nothing is said."""
    if (model := outline("AutoModelForImageTextToText", student.location, student.revision)) is None:
        return
    try:
        if tuner.lora is None:
            freeze_encoder(model, student.name)
        else:
            language_layers(model, tuner.lora, student.name)
    except TuningError as error:
        raise RecipeError(str(error)) from None


def freeze_encoder(model: Any, name: str) -> None:  # Any: transformers' own class
    """Leave what reads images as it is, and train what leads from it to language, wherever that lies: beside the
    encoder, as in LLaVA, or within it, as in Qwen-VL.

    Raises `TuningError` for a model of which that is not known: all that sees would stay as it is, or nothing.
    """
    encoder, language = model.get_encoder(modality="image"), model.get_decoder()
    inside = [part for child, part in encoder.named_children() if child in _PROJECTORS]
    beside = [part for place, part in model.named_modules() if place.rpartition(".")[2] in _PROJECTORS]
    if any(part is language for part in encoder.modules()) or not (inside or beside):
        raise TuningError(f"student: of {shown(name)} it is not known which part reads images and which leads from it "
                          "to language; write tuner.lora.rank=128, or give a LLaVA or a Qwen-VL.")  # fmt: skip
    encoder.requires_grad_(False)
    for part in inside:
        part.requires_grad_(True)


def language_layers(model: Any, lora: LoRA, name: str) -> str:  # Any: transformers' own class
    """The layers that adapters stand beside, as PEFT reads an expression of their names: those of the part that reads
    and writes language, without its head; layers of the other parts may have the same names.

    Raises `TuningError` where one of those that are asked for is none of them.
    """
    import torch

    places = {id(part): place for place, part in model.named_modules()}
    language = model.get_decoder()
    inside = {id(part) for part in language.modules()} - {id(language)}
    apart = [id(part) for part in (model.get_encoder(modality="image"), model.get_output_embeddings())]
    but = "|".join(re.escape(places[part]) for part in apart if part in inside)
    begin = re.escape(f"{places[id(language)]}.") if places[id(language)] else ""
    begin = rf"(?!(?:{but})(?:\.|$)){begin}" if but else begin
    linear = (place for place, part in model.named_modules() if isinstance(part, torch.nn.Linear))
    known = {place.rpartition(".")[2] for place in linear if re.match(begin, place)} - {_HEAD}
    if unknown := [target for target in lora.targets if target not in known]:
        said = f"tuner.lora.targets: what writes language in {shown(name)} has no linear layer {shown(unknown[0])}"
        raise TuningError(f"{said}; it has {', '.join(sorted(known))}.")
    return rf"{begin}(?:.*\.)?(?:{'|'.join(map(re.escape, sorted(set(lora.targets) or known)))})"
