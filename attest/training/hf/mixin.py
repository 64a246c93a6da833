"""The mixin that governs transformers' Trainer and the trainers of TRL."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from transformers import TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from attest.errors import TrainingError
from attest.training.hf.governance import Governance
from attest.training.hf.optimizer import RoutedOptimizer
from attest.training.hf.rows import ID, PRINCIPLE, Feed, Row, Tagged, row_of, rows_of
from attest.training.hf.run import GovernedRun
from attest.training.hf.sampling import ChunkSampler, Shape
from attest.training.layout import read_layout
from attest.training.mixed import select_rows
from attest.training.routing import compile_schedule

if TYPE_CHECKING:
    _Base = Any
else:
    _Base = object

__all__ = ["Governed"]

_METHODS = {
    "GRPOTrainer": "grpo",
    "RLOOTrainer": "rloo",
    "DPOTrainer": "dpo",
    "SFTTrainer": "sft",
    "Trainer": "sft",
}
# What the training loader is made with, and evaluation's loaders are not.
_OF_LOADER = ("data_collator", "_signature_columns")
# Rows of a generated batch by their place in it, until TRL has shuffled and split it.
_PLACES = "governed_rows"


class Governed(_Base):
    """Put before a trainer class, it routes, checks and logs every optimizer step.

        class GovernedSFT(Governed, SFTTrainer): ...

        trainer = GovernedSFT(model=..., args=..., train_dataset=...,
                              governance=Governance(constitution, Path("ledger.jsonl")))
        trainer.train()

    The data set has the columns `principle` and `id`. Optimizer, scheduler, clipping,
    accumulation, precision, adapters and checkpoints are what the trainer's arguments
    ask for; every route gets an optimizer of its own, and all follow one schedule.
    Every rank of several writes a ledger of its own. Evaluation is not touched.

    Attributes:
        governed: schedule, router and ledger of this stage.
    """

    def __init__(self, *args: Any, governance: Governance, **kwargs: Any) -> None:
        """As the trainer's own.

        Raises:
            ConstitutionError: the constitution does not fit the model.
            TrainingError: arguments under which confinement or the record would not
                hold; names them.
        """
        super().__init__(*args, **kwargs)
        _check_arguments(self, governance)
        names = [kind.__name__ for kind in type(self).__mro__]
        method = next(_METHODS[name] for name in names if name in _METHODS)
        schedule = compile_schedule(governance.constitution, read_layout(self.model))
        self._governance = governance
        self.governed = GovernedRun(self, governance, schedule, method)
        self._routed: RoutedOptimizer | None = None
        self._resumed: Path | None = None
        self._feed: Feed | None = None
        self._share = 1.0
        self._generated: list[Row] = []
        self.add_callback(_Moments(self))

    def train(self, resume_from_checkpoint: Any = None, **kwargs: Any) -> Any:
        """As the trainer's own.

        Raises:
            TrainingError: as `GovernedRun` raises it; the ledger is closed and has
                every step that was made.
        """
        if resume_from_checkpoint is True:
            resume_from_checkpoint = get_last_checkpoint(self.args.output_dir)
        found = resume_from_checkpoint or None
        self._resumed = None if found is None else Path(str(found))
        try:
            return super().train(resume_from_checkpoint, **kwargs)
        finally:
            self._feed = None
            self.governed.close()

    # --- rows ---------------------------------------------------------------------

    def get_train_dataloader(self) -> Any:
        """The trainer's own, whose batches say what rows they have."""
        self._set_signature_columns_if_needed()
        before = {name: getattr(self, name) for name in _OF_LOADER}
        collator, columns = before.values()
        self._signature_columns = [*columns, PRINCIPLE, ID]
        if not _generates(self):
            self.data_collator = Tagged(collator)
        try:
            return super().get_train_dataloader()
        finally:
            self.__dict__.update(before)

    def _get_train_sampler(self, *args: Any) -> Any:
        dataset = args[0] if args else self.train_dataset
        if not self._governance.grouped:
            return super()._get_train_sampler(*args)
        self.governed.sampler = ChunkSampler(
            rows_of(dataset),
            self._governance.constitution,
            _shape(self),
            seed=self.args.seed if self.args.data_seed is None else self.args.data_seed,
        )
        return self.governed.sampler

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        """The trainer's own; a window's rows are known before its first forward."""
        batches, count = super().get_batch_samples(*args, **kwargs)
        if batches:
            self.governed.open([_taken_rows(batch) for batch in batches])
        return batches, count

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        outputs = super()._generate_and_score_completions(inputs)
        if self.model.training:
            self._generated = [row_of(example) for example in inputs]
            outputs[_PLACES] = torch.arange(len(inputs))
        return outputs

    # --- steps --------------------------------------------------------------------

    def training_step(
        self, model: Any, inputs: Any, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """The trainer's own, inside the band; once per principle in a mixed batch."""
        window = self.governed.window
        if window is None:
            raise TrainingError("router: a training step without a window")
        window.advance()
        groups, total = window.groups(), len(window.rows)
        losses = []
        for principle, rows in groups.items():
            given = inputs
            if len(groups) > 1:
                given = select_rows(inputs, rows, total)
                self._share = self._share_of(given, inputs, num_items_in_batch)
            with window.part(principle) as feed:
                if not _generates(self):
                    feed.add_rows([window.rows[row] for row in rows])
                self._feed = feed
                loss = super().training_step(model, given, num_items_in_batch)
                feed.add_loss(loss)
            self._feed, self._share = None, 1.0
            losses.append(loss)
        return torch.stack(losses).sum()

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """The trainer's own; in training it is known what it was computed of."""
        if isinstance(inputs, Mapping) and _PLACES in inputs:
            inputs = dict(inputs)
            places = inputs.pop(_PLACES).tolist()
            if self._feed is not None:
                self._add_generated([self._generated[place] for place in places])
        if self._feed is None:
            return super().compute_loss(model, inputs, *args, **kwargs)
        self._feed.add_tensors(inputs)
        loss = super().compute_loss(model, inputs, *args, **kwargs)
        return loss if self._share == 1.0 else loss * self._share

    def _add_generated(self, rows: list[Row]) -> None:
        window, feed = self.governed.window, self._feed
        if window is None or feed is None or set(rows) - set(window.rows):
            raise TrainingError(
                "router: the completions were generated for another step",
                hint="resume from a checkpoint at the end of a generation: let "
                "save_steps be a multiple of the steps that one generation makes",
            )
        feed.add_rows(rows)

    def _share_of(self, part: Any, whole: Any, count: Any) -> float:
        """What a mean over some rows weighs in the mean over the whole batch."""
        scaled = getattr(self, "loss_is_scaled_for_ga", None)
        if scaled is None:
            scaled = self.compute_loss_func is not None or (
                self.model_accepts_loss_kwargs and count is not None
            )
        if scaled:
            return 1.0
        key = "labels" if "labels" in whole else "input_ids"
        if key == "labels":
            mine, all_ = ((b[key][..., 1:] != -100).sum() for b in (part, whole))
            return float(mine / all_)
        return float(len(part[key]) / len(whole[key]))

    # --- optimizers -----------------------------------------------------------------

    def create_optimizer(self, model: Any = None) -> Any:
        """One optimizer per route, behind one face."""
        run, trainer = self.governed, cast("Any", self)
        if trainer.optimizer is None:
            self._routed = RoutedOptimizer(
                (p for p in (model or self.model).parameters() if p.requires_grad),
                self.args.learning_rate,
                apply=run.apply,
                save=run.state_dict,
            )
            trainer.optimizer = self._routed
        return trainer.optimizer

    def _clip_grad_norm(self, model: Any) -> None:
        """Nothing yet: the router clips over the band when it steps."""

    def _get_grad_norm(self, *_: Any, **__: Any) -> Any:
        window = self.governed.window
        return None if window is None else window.norm()

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        name = f"checkpoint-{self.state.global_step}"
        self.governed.save(Path(self._get_output_dir(trial=trial)) / name)

    def _loaded_routes(self) -> Mapping[str, Any] | None:
        return None if self._routed is None else self._routed.loaded


class _Moments(TrainerCallback):
    """Calls the run at the moments that only callbacks are told."""

    def __init__(self, trainer: Governed) -> None:
        self._trainer = trainer

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        trainer = self._trainer
        trainer.governed.begin(trainer._resumed, trainer._loaded_routes())  # noqa: SLF001  # one class in two parts

    def on_epoch_begin(self, _args: Any, state: Any, *_: Any, **__: Any) -> None:
        sampler = self._trainer.governed.sampler
        if sampler is not None:
            # Exact after a resume too, when some loaders forget to say the epoch.
            sampler.set_epoch(state.global_step // sampler.steps)

    def on_train_end(self, *_: Any, **__: Any) -> None:
        self._trainer.governed.finish()


def _generates(trainer: Any) -> bool:
    return hasattr(trainer, "num_generations")


def _taken_rows(batch: Any) -> list[Row]:
    if isinstance(batch, list):  # rows that are yet to be generated from
        return [row_of(example) for example in batch]
    return list(zip(batch.pop(ID), batch.pop(PRINCIPLE), strict=True))


def _shape(trainer: Any) -> Shape:
    args = trainer.args
    accumulated = args.gradient_accumulation_steps
    if not _generates(trainer):
        rows = trainer._train_batch_size * args.world_size * accumulated  # noqa: SLF001  # as its loader does
        return Shape(rows)
    repeat = trainer.num_iterations * args.steps_per_generation
    if repeat % accumulated:
        raise TrainingError(
            f"router: {repeat} batches per generation are no multiple of "
            f"{accumulated} accumulated ones, so a step would mix principles",
            hint="let gradient_accumulation_steps divide steps_per_generation",
        )
    rows = args.generation_batch_size // trainer.num_generations
    return Shape(rows, trainer.num_generations, repeat, repeat // accumulated)


def _check_arguments(trainer: Any, governance: Governance) -> None:
    args = trainer.args
    wrong = {
        "fp16=True: its scaler skips steps behind the ledger": args.fp16,
        "load_best_model_at_end=True: it takes steps back": args.load_best_model_at_end,
        "auto_find_batch_size=True: it begins again": args.auto_find_batch_size,
        "optimizers=: every route needs one of its own": trainer.optimizer is not None,
        "DeepSpeed: its parameters cannot be told apart": trainer.is_deepspeed_enabled,
        "grouped=False: a generated batch is for one principle": _generates(trainer)
        and not governance.grouped,
        "FSDP with optimizer checkpoints; set save_only_model=True": (
            trainer.is_fsdp_enabled
            and args.save_strategy != "no"
            and not args.save_only_model
        ),
    }
    for what, given in wrong.items():
        if given:
            raise TrainingError(f"router: cannot govern {what}")
