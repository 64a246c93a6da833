"""A training run that survives `kill -9`: checkpoints, and going on from the last one.

    with Resumable(run, model, parts={"trace": recorder}) as resumable:
        trainer = Trainer(model, resumable.ledger, progress=say)
        resumable.stage("base", opening, partial(trainer.unrouted, plan, sampler))
        before = resumable.once("before", scores)
        resumable.stage("sft", opening, partial(trainer.governed, plan, sampler, ...))

Call it again after the process was killed, and it goes on: the model, the optimizers of
every route, the sampler, the random states and the parts are those of the checkpoint,
so the run ends with the same bytes as one that was never killed. The ledger keeps what
was logged after the checkpoint, and its `resume` record says that this counts no more.

Not covered: several ranks, whose newest checkpoints need not be of the same step.
"""

import hashlib
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from pickle import UnpicklingError
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
import torch
from torch import nn

from attest.errors import TrainingError
from attest.files import replace_durably
from attest.log.merkle import Frontier
from attest.training.ledger import Ledger, LedgerSummary
from attest.training.ledger.form import root_text
from attest.training.stages import Stage

__all__ = ["Part", "Resumable", "random_states", "set_random_states"]

_FORMAT = "attest-checkpoint/1"
_KEPT = 2
_HINT = "take the file away to go on from an earlier checkpoint"


class Part(Protocol):
    """Something that changes while a run trains, such as a recorder."""

    def state_dict(self) -> Mapping[str, Any]:
        """Its state: tensors, texts, numbers, and lists and dicts of them."""

    def load_state_dict(self, state: Mapping[str, Any]) -> Any:
        """Be as it was when `state_dict` gave this."""


class Resumable:
    """One run: its ledger, its model, its stages in order.

    After every `every` steps and at the end of every stage a checkpoint is written to
    `run/checkpoints`; the newest two are kept. It is on the disk whole before the
    ledger names its digest, and all that the ledger had until then before it.

    Args:
        run: the run's directory; its `ledger.jsonl` is made, or taken up again.
        model: the model as it is before the first stage, made in the same way each
            time; gets the weights of the checkpoint.
        every: steps between two checkpoints of a stage.
        parts: what else must be as it was, by name: observers that keep something.

    Attributes:
        ledger: open for appending.
        heads: size and root of the ledger at the end of each stage that is done.

    Raises:
        TrainingError: the newest checkpoint cannot be read, or is not that of a run
            like this one.
        LedgerError: the ledger is locked, changed, or names another checkpoint.
    """

    def __init__(
        self,
        run: Path,
        model: nn.Module,
        *,
        every: int = 100,
        parts: Mapping[str, Part] | None = None,
    ) -> None:
        self._folder, self._model, self._every = run / "checkpoints", model, every
        self._parts = dict(parts or {})
        self.heads: dict[str, LedgerSummary] = {}
        self._notes: dict[str, Any] = {}
        self._saved: dict[str, Any] | None = None
        path = run / "ledger.jsonl"
        self.ledger = self._rejoin(path) if path.exists() else Ledger.create(path)

    def stage(
        self, name: str, opening: Mapping[str, Any], train: Callable[..., None]
    ) -> LedgerSummary:
        """Make a stage, or what is left of it; returns the ledger's state after it.

        Args:
            name: of the stage, as its plan has it.
            opening: members of the record that opens it, beside `kind` and `stage`.
            train: makes the stage. It is called with `state`, a `Stage.state_dict` or
                None at the beginning, and with `after`, which it calls after every
                logged step with the stage.

        Raises:
            TrainingError: the run was stopped in a stage of another name.
        """
        if name in self.heads:
            if self._saved and not self._saved["stage"] and name == [*self.heads][-1]:
                self._take_up()
            return self.heads[name]
        saved = self._take_up()
        if saved.get("stage") not in (None, name):
            raise TrainingError(
                f"checkpoint: expected stage {name!r}, found {saved['stage']!r}",
                hint="resume with the stages of the stopped run, in their order",
            )
        state = saved.get("state")
        if state is None:
            self.ledger.append({"kind": "stage", "stage": name, **opening})
        train(state=state, after=self._after)
        self.heads[name] = self.ledger.summary()
        self._save(None)
        return self.heads[name]

    def once(self, name: str, compute: Callable[[], Any]) -> Any:
        """What `compute` gave, now or in the process that the checkpoint is of.

        The value is texts, numbers, tensors, or lists and dicts of them. It is kept
        with the next checkpoint.
        """
        if name not in self._notes:
            self._notes[name] = compute()
        return self._notes[name]

    def close(self) -> None:
        """Close the ledger; the checkpoints stay."""
        self.ledger.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # --- writing ------------------------------------------------------------------

    def _after(self, stage: Stage) -> None:
        # The end of a stage has a checkpoint of its own, after all that it logs.
        if stage.done % self._every == 0 and stage.done < stage.plan.steps:
            self._save(stage)

    def _save(self, stage: Stage | None) -> None:
        self.ledger.sync()
        at = self.ledger.summary()
        content = {
            "format": _FORMAT,
            "ledger": [at.size, at.root],
            "stage": None if stage is None else stage.plan.name,
            "step": 0 if stage is None else stage.done,
            "state": None if stage is None else stage.state_dict(),
            "heads": {name: [h.size, h.root] for name, h in self.heads.items()},
            "notes": self._notes,
            "model": self._model.state_dict(),
            "parts": {name: part.state_dict() for name, part in self._parts.items()},
            "random": random_states(),
        }
        self._folder.mkdir(exist_ok=True)
        path = self._folder / f"{at.size:012d}.pt"
        with replace_durably(path) as file:
            torch.save(content, file)
        self.ledger.checkpoint(**_named(content, path))
        for old in sorted(self._folder.glob("*.pt"))[:-_KEPT]:
            old.unlink()

    # --- reading ------------------------------------------------------------------

    def _rejoin(self, path: Path) -> Ledger:
        files = sorted(self._folder.glob("*.pt"))
        if not files:
            return Ledger.rejoin(path, LedgerSummary(0, root_text(Frontier())), {})
        saved = _load(files[-1])
        at = LedgerSummary(*saved["ledger"])
        ledger = Ledger.rejoin(path, at, _named(saved, files[-1]))
        try:
            self._restore(saved)
        except BaseException:
            ledger.close()
            raise
        return ledger

    def _restore(self, saved: dict[str, Any]) -> None:
        if saved["parts"].keys() != self._parts.keys():
            raise TrainingError(
                f"checkpoint: expected the parts {', '.join(self._parts) or 'none'}, "
                f"found {', '.join(saved['parts']) or 'none'}",
                hint="resume with the observers of the stopped run",
            )
        try:
            self._model.load_state_dict(saved["model"])
        except RuntimeError as error:
            raise TrainingError(
                "checkpoint: is that of another model",
                hint="resume with the model of the stopped run",
            ) from error
        for name, part in self._parts.items():
            part.load_state_dict(saved["parts"][name])
        self.heads = {n: LedgerSummary(*head) for n, head in saved["heads"].items()}
        self._notes, self._saved = dict(saved["notes"]), saved

    def _take_up(self) -> dict[str, Any]:
        """The checkpoint that is not yet used up, with its random states in force."""
        saved, self._saved = self._saved or {}, None
        if saved:
            # Not when it was read: whoever made model and sampler has drawn since.
            set_random_states(saved["random"])
        return saved


def _named(content: Mapping[str, Any], path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
    return {"stage": content["stage"], "step": content["step"], "digest": digest}


def _load(path: Path) -> dict[str, Any]:
    try:
        # No code is run: a checkpoint is data, whoever wrote it.
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, UnpicklingError, EOFError, ValueError) as error:
        raise TrainingError(
            f"checkpoint {path}: cannot be read: {type(error).__name__}", hint=_HINT
        ) from error
    if not isinstance(saved, dict) or saved.get("format") != _FORMAT:
        raise TrainingError(f"checkpoint {path}: expected {_FORMAT}", hint=_HINT)
    return saved


def random_states() -> dict[str, Any]:
    """The states of the global generators of torch, its GPUs, Python and numpy."""
    version, internal, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "python": [version, list(internal), gauss],
        "numpy": [name, np.asarray(keys).tolist(), position, has_gauss, cached],
    }


def set_random_states(states: Mapping[str, Any]) -> None:
    """Put back what `random_states` gave."""
    torch.set_rng_state(states["torch"])
    if states["cuda"]:
        torch.cuda.set_rng_state_all(states["cuda"])
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    np.random.set_state(tuple(states["numpy"]))  # noqa: NPY002
