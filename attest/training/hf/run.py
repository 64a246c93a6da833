"""A governed stage under a Trainer: router, windows, ledger and checkpoints."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import Trainer

from attest.errors import TrainingError
from attest.training.hf.checkpoint import read_checkpoint, write_checkpoint
from attest.training.hf.governance import Governance
from attest.training.hf.optimizer import optimizer_of_band
from attest.training.hf.rows import Row
from attest.training.hf.sampling import ChunkSampler
from attest.training.hf.window import Window
from attest.training.ledger import Ledger, LedgerSummary, Rank
from attest.training.mechanism import Mechanism
from attest.training.record import step_record
from attest.training.router import Router
from attest.training.routing import Schedule

__all__ = ["GovernedRun"]


class GovernedRun:
    """What a governed trainer keeps between its calls.

    Attributes:
        schedule: what each principle may change.
        method: what the ledger calls this kind of training.
        sampler: deals the rows; None where the trainer's own one does.
        router: from the beginning of `train()` on.
        window: the step under way.
        head: the ledger's state at the end of `train()`.
    """

    def __init__(
        self, trainer: Trainer, governance: Governance, schedule: Schedule, method: str
    ) -> None:
        self._trainer, self._governance = trainer, governance
        self.schedule, self.method = schedule, governance.method or method
        self.sampler: ChunkSampler | None = None
        self.router: Router | None = None
        self.window: Window | None = None
        self.head: LedgerSummary | None = None
        self._ledger: Ledger | None = None
        self._hashed = True

    def begin(self, resumed: Path | None, state: Mapping[str, Any] | None) -> None:
        """Make the router and open the ledger.

        Args:
            resumed: the folder of the checkpoint that training goes on from.
            state: what `state_dict` gave for it.

        Raises:
            TrainingError: a wrapper that cannot be governed, or a checkpoint that is
                not this run's.
            LedgerError: the ledger exists already, is locked or was changed.
        """
        trainer, governance = self._trainer, self._governance
        self.router = Router(
            trainer.model_wrapped,
            self.schedule,
            optimizer_of_band(trainer),
            max_norm=trainer.args.max_grad_norm or None,
            check_every=governance.check_every,
            observers=governance.observers,
            mechanism=governance.mechanism or self._mechanism(),
        )
        self._check_ranks(self.router)
        if resumed is None:
            self._ledger = self._create()
            self._ledger.append(self._opening())
            return
        if state is None:
            raise TrainingError(
                f"checkpoint {resumed}: has no state of the routes",
                hint="resume from a checkpoint that a governed trainer wrote",
            )
        self.router.load_state_dict(state["router"])
        self._restore_observers(state["observers"])
        self._ledger = self._rejoin(resumed)

    def state_dict(self) -> dict[str, Any] | None:
        """State of the routes, and of the observers that keep any; None before `begin`.

        Holds tensors, texts and numbers alone, if the observers' states do.
        """
        if self.router is None:
            return None
        kept = {n: each.state_dict() for n, each in self._keeping().items()}
        return {"router": self.router.state_dict(), "observers": kept}

    def open(self, batches: Sequence[Sequence[Row]]) -> None:
        """The next optimizer step is made of these rows, one list per micro-batch.

        Raises:
            TrainingError: they are not rows that the sampler dealt for it.
        """
        if self.router is None:
            raise TrainingError("router: a step outside of train()")
        principle = None
        if self.sampler is not None:
            principle = self.sampler.leader(self._steps, batches)
        self.window = Window(self.router, principle, batches)

    def apply(self, lr: float) -> None:
        """Make the window's step and write its record, or one per principle if mixed.

        Raises:
            NonFiniteError: model and ledger are as before.
            ConfinementError: a tensor outside the band changed.
            TrainingError: no window is open.
        """
        window, router, ledger = self.window, self.router, self._ledger
        if window is None or router is None or ledger is None:
            raise TrainingError("router: an optimizer step outside of train()")
        self.window = None
        outcomes = window.step(lr)
        for part, (principle, outcome) in enumerate(outcomes.items()):
            place = self._place() | {"mechanism": router.mechanism}
            if window.principle is None:
                place |= {"part": part, "parts": len(outcomes)}
            fed = window.feeds[principle].fed()
            route = self.schedule.route(principle)
            ledger.append(step_record(place, fed, outcome, lr=lr, route=route))
            self._hashed = outcome.frozen is not None

    def save(self, folder: Path) -> None:
        """Tie a checkpoint that the trainer has just written to the ledger."""
        if self._ledger is not None:
            write_checkpoint(folder, self._ledger, self._place())

    def finish(self) -> None:
        """Check the whole model, unless the last step did, and say so in the ledger."""
        if self._ledger is None or self.router is None:
            return
        if not self._hashed:
            self._ledger.append(self.router.check_record(self._place()))
            self._hashed = True
        self.head = self._ledger.summary()

    def close(self) -> None:
        """Leave the route and close the ledger, whatever happened."""
        self.window = None
        if self.router is not None:
            self.router.leave()
        if self._ledger is not None and isinstance(self._governance.ledger, Path):
            self._ledger.close()
        self._ledger = None

    def _keeping(self) -> dict[str, Any]:
        return {
            f"{number}-{type(observer).__name__}": observer
            for number, observer in enumerate(self._governance.observers)
            if hasattr(observer, "state_dict")
        }

    def _restore_observers(self, saved: Mapping[str, Any]) -> None:
        keeping = self._keeping()
        if saved.keys() != keeping.keys():
            raise TrainingError(
                f"checkpoint: expected the observers {', '.join(keeping) or 'none'}, "
                f"found {', '.join(saved) or 'none'}",
                hint="resume with the observers of the stopped run, in their order",
            )
        for name, observer in keeping.items():
            observer.load_state_dict(saved[name])

    def _check_ranks(self, router: Router) -> None:
        if self._trainer.args.world_size > 1 and not router.ranks.shared:
            raise TrainingError(
                "router: several ranks train, and nothing reduces their gradients",
                hint="let the trainer wrap the model, or shard it when it is loaded",
            )
        if router.ranks.sharded and not self._governance.grouped:
            raise TrainingError(
                "router: cannot govern grouped=False on shards: ranks that hold other "
                "principles would wait for each other",
                hint="set grouped=True, or train replicas",
            )

    def _mechanism(self) -> Mechanism | None:
        # Where the base serves as the reference, PEFT switches adapters off and on in
        # the middle of a step; then all of them need a gradient again.
        adapted = hasattr(self._trainer.model, "disable_adapter")
        return "clear" if adapted and self.method != "sft" else None

    @property
    def _steps(self) -> int:
        return int(self._trainer.state.global_step)

    def _place(self) -> dict[str, Any]:
        return {"stage": self._governance.stage, "step": self._steps}

    def _opening(self) -> dict[str, Any]:
        trainer = self._trainer
        return {
            "kind": "stage",
            "stage": self._governance.stage,
            "method": self.method,
            "steps": int(trainer.state.max_steps),
            "constitution": self._governance.constitution.digest,
            "schedule": self.schedule.digest,
            "seed": int(trainer.args.seed),
            **({} if self.router is None else self.router.report()),
        }

    def _create(self) -> Ledger:
        ledger = self._governance.ledger
        if isinstance(ledger, Ledger):
            return ledger
        return Ledger.create(self._path(ledger), rank=self._rank())

    def _rejoin(self, resumed: Path) -> Ledger:
        ledger = self._governance.ledger
        if isinstance(ledger, Ledger):
            raise TrainingError(
                "ledger: expected a path to resume from a checkpoint, found an open "
                "ledger",
                hint="give Governance the ledger's path",
            )
        at, members = read_checkpoint(resumed)
        return Ledger.rejoin(self._path(ledger), at, members, rank=self._rank())

    def _rank(self) -> Rank | None:
        args = self._trainer.args
        return (
            Rank(args.process_index, args.world_size) if args.world_size > 1 else None
        )

    def _path(self, path: Path) -> Path:
        rank = self._rank()
        if rank is None:
            return path
        return path.with_name(f"{path.stem}-rank{rank.rank:05d}{path.suffix}")
