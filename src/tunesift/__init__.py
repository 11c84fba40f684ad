"""tunesift: make instruction data better, and prove it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tunesift.budget import Budget as Budget
    from tunesift.datasets import Dataset as Dataset
    from tunesift.errors import BudgetSpent as BudgetSpent
    from tunesift.errors import CannotCreate as CannotCreate
    from tunesift.errors import DataError as DataError
    from tunesift.errors import DiskFull as DiskFull
    from tunesift.errors import FewMade as FewMade
    from tunesift.errors import ManyQuarantined as ManyQuarantined
    from tunesift.errors import MissingExtra as MissingExtra
    from tunesift.errors import ModelError as ModelError
    from tunesift.errors import ModelRefused as ModelRefused
    from tunesift.errors import ModelUnavailable as ModelUnavailable
    from tunesift.errors import ParameterRefused as ParameterRefused
    from tunesift.errors import RecipeError as RecipeError
    from tunesift.errors import ResumeError as ResumeError
    from tunesift.errors import RunError as RunError
    from tunesift.errors import RunLocked as RunLocked
    from tunesift.errors import Stopped as Stopped
    from tunesift.errors import StorageError as StorageError
    from tunesift.errors import TooManyFailures as TooManyFailures
    from tunesift.errors import TunesiftError as TunesiftError
    from tunesift.errors import TuningError as TuningError
    from tunesift.methods.cherry import Cherry as Cherry
    from tunesift.methods.cherry import PreExperience as PreExperience
    from tunesift.methods.clear import Clear as Clear
    from tunesift.methods.clear import Confident as Confident
    from tunesift.methods.clear_correct import Correct as Correct
    from tunesift.methods.clear_evidence import Embeddings as Embeddings
    from tunesift.methods.clear_evidence import NoContradiction as NoContradiction
    from tunesift.methods.clear_evidence import WordOverlap as WordOverlap
    from tunesift.methods.controllability import Controllability as Controllability
    from tunesift.methods.controllability_figures import Parroting as Parroting
    from tunesift.methods.debatune import Debatune as Debatune
    from tunesift.methods.debatune_steps import Debating as Debating
    from tunesift.methods.genqa import GenQA as GenQA
    from tunesift.methods.genqa_asking import Lists as Lists
    from tunesift.methods.genqa_prompts import Labels as Labels
    from tunesift.methods.mctune import MCTune as MCTune
    from tunesift.methods.mctune_evaluate import MCTuneEvaluate as MCTuneEvaluate
    from tunesift.methods.mctune_features import Analyser as Analyser
    from tunesift.methods.mctune_taggers import ScriptedTagger as ScriptedTagger
    from tunesift.methods.mctune_taggers import SpacyTagger as SpacyTagger
    from tunesift.methods.odin import Odin as Odin
    from tunesift.methods.optune import OPTune as OPTune
    from tunesift.methods.optune_steps import ByRating as ByRating
    from tunesift.methods.optune_steps import ByReward as ByReward
    from tunesift.methods.reflection import Reflection as Reflection
    from tunesift.methods.reflection_steps import Asking as Asking
    from tunesift.methods.score import ScoreRecords as ScoreRecords
    from tunesift.methods.select import Select as Select
    from tunesift.methods.selectit import Rater as Rater
    from tunesift.methods.selectit import SelectIT as SelectIT
    from tunesift.methods.selective_reflection import SelectiveReflection as SelectiveReflection
    from tunesift.methods.sima import Sima as Sima
    from tunesift.methods.star_agents import StarAgents as StarAgents
    from tunesift.methods.star_agents_writing import Agent as Agent
    from tunesift.methods.star_agents_writing import Writing as Writing
    from tunesift.methods.tune import Tune as Tune
    from tunesift.models.base import Completion as Completion
    from tunesift.models.base import Sampling as Sampling
    from tunesift.models.base import Span as Span
    from tunesift.models.base import TargetLoss as TargetLoss
    from tunesift.models.batches import Batching as Batching
    from tunesift.models.http import HttpModel as HttpModel
    from tunesift.models.ngrams import HashedNgrams as HashedNgrams
    from tunesift.models.nli import NliModel as NliModel
    from tunesift.models.reward import RewardClassifier as RewardClassifier
    from tunesift.models.scripted import ScriptedModel as ScriptedModel
    from tunesift.models.sentences import SentenceModel as SentenceModel
    from tunesift.models.transformers import TransformersModel as TransformersModel
    from tunesift.models.vision import VisionModel as VisionModel
    from tunesift.perform import Summary as Summary
    from tunesift.perform import run_recipe as run_recipe
    from tunesift.reading import read_dataset as read_dataset
    from tunesift.reading import read_preferences as read_preferences
    from tunesift.recipe import Recipe as Recipe
    from tunesift.recipe import load_recipe as load_recipe
    from tunesift.recipe import recipe_for as recipe_for
    from tunesift.records import Decision as Decision
    from tunesift.records import Failure as Failure
    from tunesift.records import Message as Message
    from tunesift.records import Preference as Preference
    from tunesift.records import Record as Record
    from tunesift.records import Score as Score
    from tunesift.running.local import Local as Local
    from tunesift.running.result import Result as Result
    from tunesift.running.run import Run as Run
    from tunesift.scoring.base import Scorer as Scorer
    from tunesift.scoring.combined import Combined as Combined
    from tunesift.scoring.diverse import Diverse as Diverse
    from tunesift.scoring.dual_ifd import DualIFD as DualIFD
    from tunesift.scoring.duplicates import Distinct as Distinct
    from tunesift.scoring.ifd import IFD as IFD
    from tunesift.scoring.ifd import ReversedIFD as ReversedIFD
    from tunesift.scoring.perplexity import Perplexity as Perplexity
    from tunesift.scoring.selectors import Above as Above
    from tunesift.scoring.selectors import Largest as Largest
    from tunesift.scoring.selectors import Longest as Longest
    from tunesift.scoring.selectors import Pool as Pool
    from tunesift.scoring.selectors import Quota as Quota
    from tunesift.scoring.selectors import Random as Random
    from tunesift.scoring.selectors import Scored as Scored
    from tunesift.scoring.selectors import Shortest as Shortest
    from tunesift.scoring.selectors import Smallest as Smallest
    from tunesift.settings import INCIDENTAL as INCIDENTAL
    from tunesift.settings import Settings as Settings
    from tunesift.tuning.base import LoRA as LoRA
    from tunesift.tuning.dpo import DPO as DPO
    from tunesift.tuning.process import Tuning as Tuning
    from tunesift.tuning.reward import RewardTuner as RewardTuner
    from tunesift.tuning.sft import SFT as SFT
    from tunesift.tuning.vision_dpo import VisionDPO as VisionDPO
    from tunesift.writing import write_records as write_records

_HOMES = {
    "datasets": ("Dataset",),
    "budget": ("Budget",),
    "errors": (
        "BudgetSpent", "CannotCreate", "DataError", "DiskFull", "FewMade", "ManyQuarantined", "MissingExtra",
        "ModelError", "ModelRefused", "ModelUnavailable", "ParameterRefused", "RecipeError", "ResumeError", "RunError",
        "RunLocked", "Stopped", "StorageError", "TooManyFailures", "TunesiftError", "TuningError",
    ),
    "methods.cherry": ("Cherry", "PreExperience"),
    "methods.clear": ("Clear", "Confident"),
    "methods.clear_correct": ("Correct",),
    "methods.clear_evidence": ("Embeddings", "NoContradiction", "WordOverlap"),
    "methods.genqa": ("GenQA",),
    "methods.genqa_asking": ("Lists",),
    "methods.genqa_prompts": ("Labels",),
    "methods.controllability": ("Controllability",),
    "methods.controllability_figures": ("Parroting",),
    "methods.debatune": ("Debatune",),
    "methods.debatune_steps": ("Debating",),
    "methods.mctune": ("MCTune",),
    "methods.mctune_evaluate": ("MCTuneEvaluate",),
    "methods.mctune_features": ("Analyser",),
    "methods.mctune_taggers": ("ScriptedTagger", "SpacyTagger"),
    "methods.odin": ("Odin",),
    "methods.optune": ("OPTune",),
    "methods.optune_steps": ("ByRating", "ByReward"),
    "methods.reflection": ("Reflection",),
    "methods.reflection_steps": ("Asking",),
    "methods.score": ("ScoreRecords",),
    "methods.select": ("Select",),
    "methods.selectit": ("Rater", "SelectIT"),
    "methods.selective_reflection": ("SelectiveReflection",),
    "methods.sima": ("Sima",),
    "methods.star_agents": ("StarAgents",),
    "methods.star_agents_writing": ("Agent", "Writing"),
    "models.base": ("Completion", "Sampling", "Span", "TargetLoss"),
    "models.batches": ("Batching",),
    "models.http": ("HttpModel",),
    "models.ngrams": ("HashedNgrams",),
    "models.nli": ("NliModel",),
    "models.reward": ("RewardClassifier",),
    "models.scripted": ("ScriptedModel",),
    "models.sentences": ("SentenceModel",),
    "methods.tune": ("Tune",),
    "models.transformers": ("TransformersModel",),
    "models.vision": ("VisionModel",),
    "perform": ("Summary", "run_recipe"),
    "reading": ("read_dataset", "read_preferences"),
    "recipe": ("Recipe", "load_recipe", "recipe_for"),
    "records": ("Decision", "Failure", "Message", "Preference", "Record", "Score"),
    "running.local": ("Local",),
    "running.result": ("Result",),
    "running.run": ("Run",),
    "scoring.base": ("Scorer",),
    "scoring.combined": ("Combined",),
    "scoring.diverse": ("Diverse",),
    "scoring.dual_ifd": ("DualIFD",),
    "scoring.duplicates": ("Distinct",),
    "scoring.ifd": ("IFD", "ReversedIFD"),
    "scoring.perplexity": ("Perplexity",),
    "scoring.selectors": (
        "Above", "Largest", "Longest", "Pool", "Quota", "Random", "Scored", "Shortest", "Smallest",
    ),
    "settings": ("INCIDENTAL", "Settings"),
    "tuning.base": ("LoRA",),
    "tuning.dpo": ("DPO",),
    "tuning.process": ("Tuning",),
    "tuning.reward": ("RewardTuner",),
    "tuning.sft": ("SFT",),
    "tuning.vision_dpo": ("VisionDPO",),
    "writing": ("write_records",),
}  # fmt: skip
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> object:
    """Names are imported when they are first asked for, so that `import tunesift` costs nothing."""
    if name not in _HOME:
        raise AttributeError(f"module 'tunesift' has no attribute {name!r}")
    return getattr(import_module(f"tunesift.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
