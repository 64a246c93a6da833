"""Training stages that write a ledger: unrouted and governed."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from attest.training.batches import Sampler
from attest.training.constitution import Constitution
from attest.training.ledger import Ledger
from attest.training.observer import StepObserver
from attest.training.router import MakeOptimizer, Router
from attest.training.routing import Schedule
from attest.training.stages import GovernedStage, Plan, Stage, UnroutedStage, adamw
from attest.training.tamper import Tamper

__all__ = ["Plan", "Progress", "Stage", "Trainer", "adamw"]

Progress = Callable[[str, int, int], None]


class Trainer:
    """Runs stages on one model and writes every optimizer step to one ledger.

    A stage that raises leaves model and ledger as they were before the failing step.
    """

    def __init__(  # noqa: PLR0913  # what trains, and four dials
        self,
        model: nn.Module,
        ledger: Ledger,
        *,
        progress: Progress,
        make_optimizer: MakeOptimizer = adamw,
        observers: Sequence[StepObserver] = (),
        check_every: int = 1,
    ) -> None:
        self._model, self._ledger = model, ledger
        self._progress, self._make_optimizer = progress, make_optimizer
        self._observers, self._check_every = observers, check_every

    def unrouted(
        self,
        plan: Plan,
        sampler: Sampler,
        *,
        state: Mapping[str, Any] | None = None,
        after: Callable[[Stage], None] | None = None,
    ) -> None:
        """Train all tensors on rows of all principles alike.

        `after` is called after every logged step, with the stage whose `state_dict` may
        be kept; `state` is such a one, and the stage goes on from there. The caller
        puts the weights of then into the model and says in the ledger that it resumed.

        Raises:
            TrainingError: the state does not fit model or rows.
            NonFiniteError: a loss or gradient is not finite.
        """
        stage = UnroutedStage(
            self._model,
            plan,
            sampler,
            optimizer=self._make_optimizer,
            observers=self._observers,
        )
        self._run(stage, state, after)

    def governed(  # noqa: PLR0913  # a stage, what governs it, and two for stopping
        self,
        plan: Plan,
        sampler: Sampler,
        *,
        constitution: Constitution,
        schedule: Schedule,
        tamper: Tamper | None = None,
        state: Mapping[str, Any] | None = None,
        after: Callable[[Stage], None] | None = None,
    ) -> None:
        """Train one principle per step, in its band only, with anchors of the others.

        With `tamper`, steps for its principles also take the gradient that their rows
        have after a simulated attack, once it is due; the ledger says so per step.

        `state` and `after` are as in `unrouted`. Where the last step was not hashed, a
        record of kind `check` follows it: everything outside the bands is unchanged.

        Raises:
            TrainingError: a principle without rows, or a state that does not fit.
            NonFiniteError: a loss or gradient is not finite.
            ConfinementError: a tensor outside a band changed.
        """
        router = Router(
            self._model,
            schedule,
            self._make_optimizer,
            observers=self._observers,
            check_every=self._check_every,
        )
        stage = GovernedStage(
            self._model,
            plan,
            sampler,
            router,
            constitution=constitution,
            tamper=tamper,
        )
        self._run(stage, state, after)

    def _run(
        self,
        stage: Stage,
        state: Mapping[str, Any] | None,
        after: Callable[[Stage], None] | None,
    ) -> None:
        if state is not None:
            stage.load_state_dict(state)
        plan = stage.plan
        while stage.done < plan.steps:
            self._ledger.append(stage.advance())
            self._progress(plan.name, stage.done, plan.steps)
            if after is not None:
                after(stage)
        last = stage.finish()
        if last is not None:
            self._ledger.append(last)
