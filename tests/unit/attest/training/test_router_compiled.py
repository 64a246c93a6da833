"""torch.compile: traced and differentiated for real, without the C++ compiler.

With the compiler (backend inductor) such a test took 103 seconds on a busy machine when
gradients were toggled and 28 when they were cleared: three bands make three graphs or
one. The weights then differed from eager training by 4e-7 after five steps.
"""

import pytest
import torch
from fakes.training import (
    OVERLAPPING,
    changed,
    fingerprints,
    micro_model,
    schedule_of,
    token_batch,
)

from attest.training.mechanism import choose_mechanism
from attest.training.router import Router

BATCH = token_batch(rows=2, length=8)


def adamw(parameters):
    return torch.optim.AdamW(parameters, weight_decay=0.1)


def train(router, model, principle):
    with router.route(principle):
        model(**BATCH).loss.backward()
        router.step(1e-3)


@pytest.mark.parametrize("mechanism", ["toggle", "clear"])
def test_a_compiled_model_trains_alike(mechanism):
    torch.compiler.reset()
    plain, base = micro_model(), micro_model()
    schedule = schedule_of(base, OVERLAPPING)
    model = torch.compile(base, backend="aot_eager")
    router = Router(model, schedule, adamw, mechanism=mechanism)
    reference = Router(plain, schedule, adamw)
    for principle in ("deep", "shallow", "deep", "shallow"):
        train(router, model, principle)
        train(reference, plain, principle)
    assert fingerprints(model) == fingerprints(plain)
    for principle in ("shallow", "deep"):
        before = fingerprints(model)
        for _ in range(20):
            train(router, model, principle)
        assert changed(before, model) == set(router.trained(principle))


def test_more_bands_than_graphs_are_cleared():
    model = torch.compile(micro_model(), backend="aot_eager")
    assert choose_mechanism(model, 8) == "toggle"
    assert choose_mechanism(model, 9) == "clear"
    assert choose_mechanism(micro_model(), 9) == "toggle"
