"""One optimizer step under a Trainer: its micro-batches, bands and rows."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from attest.errors import TrainingError
from attest.training.hf.rows import Feed, Row
from attest.training.mixed import MixedWindow
from attest.training.router import NonFiniteError, Router, StepOutcome

__all__ = ["Window"]


class Window:
    """A step for one principle, or a mixed one where `principle` is None.

    Attributes:
        principle: whose band every row trains; None if each trains its own.
        feeds: what was given to the model so far, by the principle whose band it
            trained.
        rows: those of the current micro-batch.
    """

    def __init__(
        self, router: Router, principle: str | None, batches: Sequence[Sequence[Row]]
    ) -> None:
        """`batches` has the rows of every micro-batch to come."""
        self.principle, self.feeds = principle, dict[str, Feed]()
        self.rows: Sequence[Row] = ()
        self._router, self._waiting = router, list(batches)
        self._mixed = MixedWindow(router) if principle is None else None

    def advance(self) -> None:
        """Begin the next micro-batch.

        Raises:
            TrainingError: there is none.
        """
        if not self._waiting:
            raise TrainingError("router: more micro-batches than were drawn")
        self.rows = self._waiting.pop(0)
        if self.principle is not None and self._router.active is None:
            self._router.enter(self.principle)

    def groups(self) -> dict[str, list[int]]:
        """Whose bands the current micro-batch trains, and with which of its rows.

        Raises:
            ConstitutionError: a row's principle has no route.
        """
        if self.principle is not None:
            return {self.principle: list(range(len(self.rows)))}
        groups: dict[str, list[int]] = {}
        for number, (_, principle) in enumerate(self.rows):
            groups.setdefault(self._router.schedule.route(principle).principle, [])
            groups[principle].append(number)
        return {n: groups[n] for n in self._router.schedule.routes if n in groups}

    @contextmanager
    def part(self, principle: str) -> Iterator[Feed]:
        """Around a forward and backward for this principle's band."""
        feed = self.feeds.setdefault(principle, Feed())
        if self._mixed is None:
            yield feed
            return
        with self._mixed.part(principle):
            yield feed

    def norm(self) -> torch.Tensor | None:
        """The norm of the gradient in the band; None for a mixed step.

        Raises:
            NonFiniteError: as `step`.
        """
        self._check_losses()
        if self._mixed is not None:
            return None
        return torch.tensor(self._router.norm())

    def step(self, lr: float) -> dict[str, StepOutcome]:
        """Make the step; the outcome of each principle's part of it.

        Raises:
            NonFiniteError: a gradient is not finite on some rank; the model is as
                before. Losses were looked at by `norm`.
            TrainingError: as the router raises it.
        """
        if self._mixed is not None:
            return self._mixed.step(lr)
        outcome = self._router.step(lr)
        self._router.leave()
        return {str(self.principle): outcome}

    def _check_losses(self) -> None:
        bad = [row for feed in self.feeds.values() for row in feed.not_finite()]
        if self._router.ranks.all_of(not bad)[0]:
            return
        which = f"of rows {bad[0]} and {len(bad) - 1} more" if bad else "on some rank"
        raise NonFiniteError(
            f"the loss {which} is not finite",
            hint="lower the learning rate or look at these rows; the model and the "
            "ledger are as before this step",
        )
