"""Which weights of a training are the best? Those that are kept aside whenever held-out pairs are judged better.

They lie in the stage's own folder, so that a run folder may be moved; a training that was cut off finds those again
that were there at its checkpoint, and makes the later ones anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from shutil import rmtree
from typing import Any

from tunesift.running.sealing import seal, sealed
from tunesift.running.training import CHECKPOINT

BEST = "best"
ACCURACIES = ("accuracy", "longer_accuracy", "shorter_accuracy")
"""What is noted of the held-out pairs: of all, and of those whose longer or whose shorter answer was chosen."""
_FILE = "trained.safetensors"


class Best:
    """The best weights so far, of a training in this folder."""

    def __init__(self, into: Path) -> None:
        self._into = into

    def found(self) -> tuple[int, float] | None:
        """The step of the best weights, the first of equal ones, and their accuracy, 0 to 1; None where none are."""
        every = self._every()
        return max(every.items(), key=lambda one: (one[1], -one[0])) if every else None

    def load_into(self, model: Any) -> tuple[int, float] | None:  # Any: transformers' or PEFT's own class
        """Put the best weights into the model, and say which they are; None leaves it as it is."""
        from safetensors.torch import load_file

        if (best := self.found()) is None:
            return None
        weights = load_file(str(self._folder(best[0]) / _FILE))
        trained = _trained(model)
        assert weights.keys() == trained.keys()  # this training wrote them
        for name, parameter in trained.items():
            parameter.data.copy_(weights[name])
        return best

    def callback(self, by: str) -> Any:  # Any: transformers' own class
        """Who keeps weights aside whenever the held-out pairs were looked at, the last time at the end."""
        from transformers import TrainerCallback

        best = self

        class Callback(TrainerCallback):  # type: ignore[misc]  # a class of a library without types
            def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:  # Any: theirs
                best.forget_after(state.global_step)

            def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:  # Any: theirs
                if args.eval_strategy != "no" and state.global_step >= state.max_steps:
                    control.should_evaluate = True

            def on_evaluate(self, args: Any, state: Any, control: Any, **more: Any) -> None:  # Any: theirs
                if state.global_step and state.is_world_process_zero and by != "last":
                    best.offer(more["model"], state.global_step, judged(more["metrics"], by))

        return Callback()

    def forget_after(self, step: int) -> None:
        """Remove what is of later steps, which are made again, and what is not whole."""
        for folder in self._into.glob(f"{BEST}-*"):
            said = sealed(folder)
            if said is None or said["step"] > step:
                rmtree(folder)

    def offer(self, model: Any, step: int, accuracy: float) -> None:  # Any: transformers' or PEFT's own class
        """Keep the weights aside where they are better than all before; with them stays what a training that is cut off
        now would go back to."""
        from safetensors.torch import save_file

        before = self.found()
        if before is not None and accuracy <= before[1]:
            return
        folder = self._folder(step)
        rmtree(folder, ignore_errors=True)
        folder.mkdir()
        copies = {name: p.detach().cpu().contiguous().clone() for name, p in _trained(model).items()}
        save_file(copies, str(folder / _FILE))
        seal(folder, {"step": step, "accuracy": accuracy})
        for other in self._every().keys() - {step, self._before_checkpoint()}:
            rmtree(self._folder(other))

    def _before_checkpoint(self) -> int | None:
        """The best step up to the newest checkpoint that is whole."""
        saved = [said["step"] for path in self._into.glob(f"{CHECKPOINT}-*") if (said := sealed(path)) is not None]
        earlier = {step: accuracy for step, accuracy in self._every().items() if step <= max(saved, default=0)}
        return max(earlier, key=lambda step: (earlier[step], -step)) if earlier else None

    def _every(self) -> Mapping[int, float]:
        found = (sealed(folder) for folder in self._into.glob(f"{BEST}-*"))
        return {said["step"]: said["accuracy"] for said in found if said is not None}

    def _folder(self, step: int) -> Path:
        return self._into / f"{BEST}-{step}"


def judged(metrics: Mapping[str, float], by: str) -> float:
    """How well weights judge the held-out pairs, 0 to 1: over all of them, or `balanced` between those whose longer and
    those whose shorter answer was chosen, where there are both."""
    every, *sides = (f"eval_{name}" for name in ACCURACIES)
    there = [metrics[name] for name in sides if name in metrics]
    return sum(there) / len(there) if by == "balanced" and len(there) == len(sides) else metrics[every]


def _trained(model: Any) -> dict[str, Any]:  # Any: transformers' or PEFT's own class; torch's
    """The weights that are updated, by their names."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
