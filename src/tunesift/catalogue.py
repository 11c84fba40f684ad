"""Every method and executor that a recipe may name."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tunesift.methods.cherry import Cherry
from tunesift.methods.clear import Clear
from tunesift.methods.controllability import Controllability
from tunesift.methods.debatune import Debatune
from tunesift.methods.genqa import GenQA
from tunesift.methods.mctune import MCTune
from tunesift.methods.mctune_evaluate import MCTuneEvaluate
from tunesift.methods.odin import Odin
from tunesift.methods.optune import OPTune
from tunesift.methods.reflection import Reflection
from tunesift.methods.score import ScoreRecords
from tunesift.methods.select import Select
from tunesift.methods.selectit import SelectIT
from tunesift.methods.selective_reflection import SelectiveReflection
from tunesift.methods.sima import Sima
from tunesift.methods.star_agents import StarAgents
from tunesift.methods.tune import Tune
from tunesift.running.local import Local

AnyMethod = Annotated[
    Select
    | Cherry
    | SelectIT
    | Clear
    | Reflection
    | SelectiveReflection
    | StarAgents
    | GenQA
    | Debatune
    | Controllability
    | Tune
    | Sima
    | MCTune
    | MCTuneEvaluate
    | Odin
    | OPTune
    | ScoreRecords,
    Field(discriminator="kind"),
]
AnyExecutor = Local
"""A union as soon as there is a second executor."""
