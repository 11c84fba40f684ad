"""What can be trained of a student: how long may a record be, can all weights be, can adapters stand beside it?"""

from __future__ import annotations

from tunesift.errors import RecipeError, shown
from tunesift.models.folders import base_of, context_of, local_folder
from tunesift.models.transformers import TransformersModel
from tunesift.tuning.base import Training


def limit_of(student: TransformersModel, tuner: Training) -> int | None:
    """Most tokens of a record: those of the settings, of which `tuner.max_length` comes before the 2,048 that a student
    reads where nothing is set, and never more than the model reads; None where neither settings nor files say."""
    if tuner.max_length is None:
        return student.most_tokens()
    limits = (tuner.max_length, student.max_length, context_of(student.location, student.revision))
    return min(n for n in limits if n is not None)


def check_trainable(student: TransformersModel, tuner: Training) -> None:
    """Raise `RecipeError` for adapters beside a student that is adapters itself, since they name one model, without
    these; and for all weights in float16, where AdamW divides by what has become 0, and the loss grows without end."""
    if tuner.lora is None and student.dtype == "float16":
        raise RecipeError("student.dtype: float16 is too coarse for weights that are all trained; write float32 or "
                          "bfloat16, or set tuner.lora.")  # fmt: skip
    folder = local_folder(student.location) if tuner.lora is not None else None
    if folder is not None and base_of(folder) is not None:
        raise RecipeError(f"tuner.lora: {shown(student.name)} holds adapters itself, and new ones would name the model "
                          "without them; leave tuner.lora out, or give a model with all its weights.")  # fmt: skip
