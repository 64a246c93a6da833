"""A world for profiles: four small blocks, two principles, a second of training.

A prompt begins with a token that tells its principle, and each principle has one answer
of three tokens; the governed stage teaches another answer than the base stage did.
"""

import torch
from fakes.training import micro_model

from attest.training.batches import Example, Sampler
from attest.training.constitution import parse_constitution
from attest.training.layout import read_layout
from attest.training.loop import Plan, Trainer
from attest.training.profile.lca import ProfileRecorder
from attest.training.profile.measured import Allocation, Event, Exchange, Measurement
from attest.training.profile.patching import snapshot
from attest.training.profile.probe import make_probes
from attest.training.profile.probe_loss import put
from attest.training.profile.values import Profile
from attest.training.routing import compile_schedule

PRINCIPLES = ("a", "b")
_FIRST = {"a": 10, "b": 11}
ANSWERS = {
    "base": {"a": (30, 31, 2), "b": (32, 33, 2)},
    "governed": {"a": (40, 41, 2), "b": (42, 43, 2)},
}


class NoLedger:
    """Takes records and forgets them."""

    def append(self, record):
        return 0


def silent(_stage, _done, _total):
    pass


def rows(stage, *, count=40, seed=0, principles=PRINCIPLES, teach=None):
    """Rows of a stage; `teach` is the stage whose answers they carry."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for name in principles:
        for number in range(count):
            body = torch.randint(20, 60, (4,), generator=generator).tolist()
            answer = ANSWERS[teach or stage][name]
            row = f"{name}-{stage}-{number}"
            made.append(Example(row, name, (_FIRST[name], *body), answer))
    return made


def constitution(**layers):
    """Each principle in the layers that are named for it."""
    lines = [
        f"  - {{id: {name}, title: T, class: adaptable, text: T, "
        f"band: {{layers: {list(band)}}}}}"
        for name, band in layers.items()
    ]
    head = "schema: constitution/1\nid: micro\nversion: 1.0.0\nprinciples:\n"
    return parse_constitution((head + "\n".join(lines) + "\n").encode())


class World:
    """A model after its base stage, its schedule and probes."""

    def __init__(self, *, seed=0, steps=40, blocks=4, **layers):
        self.seed = seed
        self.model = micro_model(seed=seed, layers=blocks)
        self.layout = read_layout(self.model)
        self.constitution = constitution(**(layers or {"a": (1,), "b": (2,)}))
        self.schedule = compile_schedule(self.constitution, self.layout)
        self.trainer().unrouted(
            Plan("base", steps, 16, 1e-2), Sampler(rows("base", seed=1), seed=seed)
        )
        self.parent = snapshot(self.model)
        self.probes = self.probes_of()

    def reset(self):
        """The weights, their flags and the mode of before the governed stage."""
        put(dict(self.model.named_parameters()), self.parent)
        self.model.requires_grad_(requires_grad=True).train()
        return self

    def probes_of(self, *, chunks=4, count=12):
        held = rows("governed", count=count, seed=2)
        return make_probes(held, self.schedule, pad=0, chunks=chunks)

    def trainer(self, *observers, ledger=None):
        ledger = NoLedger() if ledger is None else ledger
        return Trainer(self.model, ledger, progress=silent, observers=observers)

    def recorder(self, **options):
        return ProfileRecorder(self.model, self.probes, self.layout, **options)

    def govern(self, *observers, steps=20, lr=1e-2, ledger=None, taught=None):
        self.trainer(*observers, ledger=ledger).governed(
            Plan("governed", steps, 12, lr),
            Sampler(taught or rows("governed", seed=3), seed=self.seed + 1),
            constitution=self.constitution,
            schedule=self.schedule,
        )

    def unrouted(self, *observers, steps=20, lr=1e-2, ledger=None, taught=None):
        self.trainer(*observers, ledger=ledger).unrouted(
            Plan("free", steps, 24, lr),
            Sampler(taught or rows("governed", seed=3), seed=self.seed + 1),
        )


def profile(**members):
    """A profile of four blocks that adds up."""
    return Profile(
        **{
            "principle": "refuse",
            "band": (2, 3),
            "blocks": 4,
            "units": ("L00", "L01", "L02", "L03"),
            "allocated": (100_000, -50_000, 400_000, 500_000),
            "drop": 960_000,
            "by_source": {"refuse": 700_000, "tone": 250_000},
            "probe": "sha256:" + "0" * 64,
            "rows": 12,
            "every": 20,
            "steps": 100,
            **members,
        }
    )


def measurement(**members):
    """Two blocks and a head, two chunks, two principles, two events."""
    allocations = {
        name: Allocation(
            principle=name,
            band=band,
            probe="sha256:" + "1" * 64,
            rows=6,
            weights=(10, 20),
            before=(4_000_000_000, 5_000_000_000),
            after=(1_000_000_000, 1_500_000_000),
            amounts={
                "a": (
                    (500_000_000, 2_000_000_000, 100),
                    (400_000_000, 2_600_000_000, 0),
                ),
                "b": ((-1_000_000, 450_000_000, 0), (5_000_000, 500_000_000, 0)),
            },
        )
        for name, band in {"a": (1,), "b": ()}.items()
    }
    return Measurement(
        **{
            "stage": "governed",
            "seed": 7,
            "every": 20,
            "steps": 4,
            "blocks": 2,
            "units": ("L00", "L01", "head"),
            "allocations": allocations,
            "curve": {0: {"a": 4, "b": 5}, 4: {"a": 1, "b": 1}},
            "events": (
                Event(0, "a", {"a": {"L01": 5}, "b": {"L01": -3}}),
                Event(3, "b", {"a": {"L00": -2}, "b": {"L00": 8}}),
            ),
            "exchanges": {"a": Exchange((1, 8, 0), (3, 8, 0))},
            **members,
        }
    )
