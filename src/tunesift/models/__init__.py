"""Which class can do what: a setting typed with one of these unions takes any model that has the ability."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tunesift.models.http import HttpModel
from tunesift.models.ngrams import HashedNgrams
from tunesift.models.reward import RewardClassifier
from tunesift.models.scripted import ScriptedModel
from tunesift.models.sentences import SentenceModel
from tunesift.models.transformers import TransformersModel
from tunesift.models.vision import VisionModel

ChatModel = Annotated[TransformersModel | HttpModel | ScriptedModel, Field(discriminator="kind")]
LikelihoodModel = Annotated[TransformersModel | HttpModel | ScriptedModel, Field(discriminator="kind")]
EmbedModel = Annotated[
    SentenceModel | HashedNgrams | TransformersModel | HttpModel | ScriptedModel, Field(discriminator="kind")
]
VisionChatModel = Annotated[VisionModel | HttpModel | ScriptedModel, Field(discriminator="kind")]
RewardModel = Annotated[RewardClassifier | ScriptedModel, Field(discriminator="kind")]


def name_of(model: ChatModel | VisionChatModel | LikelihoodModel | EmbedModel | RewardModel) -> str:
    """What plans call a model: its name, or its kind where it has none."""
    return str(getattr(model, "name", model.kind))
