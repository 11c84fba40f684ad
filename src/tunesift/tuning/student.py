"""What can be trained of a student: how long may a record be, can all weights be, can adapters stand beside it?"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from tunesift.errors import ModelUnavailable, RecipeError, shown
from tunesift.models.folders import base_of, context_of, local_folder, matrices
from tunesift.models.transformers import TransformersModel
from tunesift.tuning.base import Training
from tunesift.tuning.sft import SFT


def limit_of(student: TransformersModel, tuner: Training) -> int | None:
    """Most tokens of a record: those of the settings, of which `tuner.max_length` comes before the 2,048 that a student
    reads where nothing is set, and never more than the model reads; None where nothing is set and the model is not
    here."""
    if tuner.max_length is None:
        return student.most_tokens()
    limits = (tuner.max_length, student.max_length, context_of(student.location, student.revision))
    return min(n for n in limits if n is not None)


def check_trainable(student: TransformersModel, tuner: Training) -> None:
    """Raise `RecipeError` for what is known to fail before any weight is loaded, or to leave no model.

    Adapters beside a student that is adapters itself, since they name one model, without these; all weights in float16,
    where AdamW divides by what has become 0, and the loss grows without end; adapters for a layer that no weight is of;
    packing without FlashAttention. `ModelUnavailable` for a GPU that is not here.
    """
    if tuner.lora is None and student.dtype == "float16":
        raise RecipeError("student.dtype: float16 is too coarse for weights that are all trained; write float32 or "
                          "bfloat16, or set tuner.lora.")  # fmt: skip
    folder = local_folder(student.location) if tuner.lora is not None else None
    if folder is not None and base_of(folder) is not None:
        raise RecipeError(f"tuner.lora: {shown(student.name)} holds adapters itself, and new ones would name the model "
                          "without them; leave tuner.lora out, or give a model with all its weights.")  # fmt: skip
    if tuner.lora is not None:
        _check_targets(student.name, student.location, tuner.lora.targets)
    if (
        isinstance(tuner, SFT)
        and tuner.packing
        and (student.device in ("cpu", "mps") or find_spec("flash_attn") is None)
    ):
        raise RecipeError("tuner.packing: records in one row see one another without FlashAttention on a GPU, which is "
                          "not here; leave packing out.")  # fmt: skip
    _check_gpu(student.device)


def _check_targets(name: str, location: str, targets: Sequence[str]) -> None:
    if not targets or (found := matrices(location)) is None:
        return
    if unknown := [target for target in targets if target not in found]:
        linear = ", ".join(sorted(found - {"embed_tokens", "lm_head"}))
        raise RecipeError(
            f"tuner.lora.targets: {shown(name)} has no linear layer {shown(unknown[0])}; it has {linear}."
        )


def _check_gpu(device: str) -> None:
    """Raise where a GPU that is asked for is not here; looks for it without taking any of its memory."""
    kind, _, number = device.partition(":")
    if kind != "cuda" or find_spec("torch") is None:
        return
    import torch

    there = torch.cuda.device_count()
    if not there or (number.isdecimal() and int(number) >= there):
        raise ModelUnavailable(f'device: "{shown(device)}" is not to be had here, of {there} GPUs; write auto or cpu.')
