"""One of two processes that train together: `python -m fakes.ranks DIRECTORY`.

RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT stand in the environment.
Every case writes what this rank saw to `CASE-RANK.json`.
"""

import json
import sys
import warnings
from pathlib import Path

import torch
import torch.distributed as dist
from fakes.ranks_hf import governed_trainer, sharded_trainer, whole
from fakes.training import OVERLAPPING, micro_model, schedule_of, token_batch
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from attest.errors import TrainingError
from attest.training.mechanism import named_parameters
from attest.training.mixed import MixedWindow, select_rows
from attest.training.router import Router

BATCH = token_batch(rows=8, length=8)
WARM = ("deep", "shallow", "middle", "deep")
STEPS = 20


def adamw(parameters):
    return torch.optim.AdamW(parameters, weight_decay=0.1)


def plain_sgd(parameters):
    return torch.optim.SGD(parameters)


def my_rows(rank, part):
    """The rows of a rank's micro-batch."""
    return select_rows(BATCH, [4 * rank + 2 * part, 4 * rank + 2 * part + 1], 8)


def differing(one, two):
    return sorted(n for n in one if not torch.equal(one[n], two[n]))


def furthest(one, two):
    return max(float((one[n] - two[n]).abs().max()) for n in one)


def reference(steps, *, make=adamw, max_norm=0.1):
    """One process that sees the rows of both ranks."""
    model = micro_model()
    router = Router(model, schedule_of(model, OVERLAPPING), make, max_norm=max_norm)
    outcomes = []
    for principle in steps:
        with router.route(principle):
            halves = []
            for rank in (0, 1):  # summed in the order in which ranks sum
                model.zero_grad()
                for part in (0, 1):
                    model(**my_rows(rank, part)).loss.backward()
                halves.append([p.grad for p in model.parameters()])
            for parameter, one, two in zip(model.parameters(), *halves, strict=True):
                parameter.grad = None if one is None else one / 2 + two / 2
            outcomes.append(router.step(1e-3))
    return whole(model), energies(outcomes)


def energies(outcomes):
    return [sorted(outcome.energy.items()) for outcome in outcomes]


def train(router, model, steps, rank):
    """Steps of two micro-batches; the gradients of the first are not reduced."""
    outcomes = []
    for principle in steps:
        with router.route(principle):
            with model.no_sync():
                model(**my_rows(rank, 0)).loss.backward()
            model(**my_rows(rank, 1)).loss.backward()
            outcomes.append(router.step(1e-3))
    return outcomes


def confined(router, model, run):
    """For 20 steps of each of two principles: what changed outside of its band."""
    outside = []
    for principle in ("shallow", "deep"):
        before = whole(model)
        run([principle] * STEPS)
        moved = differing(before, whole(model))
        outside.append(sorted(set(moved) - set(router.trained(principle))))
        assert moved
    return outside


def ddp(rank, *, unused):
    base = micro_model()
    schedule = schedule_of(base, OVERLAPPING)
    model = DistributedDataParallel(base, find_unused_parameters=unused)
    router = Router(model, schedule, adamw, max_norm=0.1)
    outcomes = train(router, model, WARM, rank)
    weights, energy = reference(WARM)
    gap = differing(weights, whole(model))
    same_energy = energies(outcomes) == energy
    outside = confined(router, model, lambda steps: train(router, model, steps, rank))
    return {
        "mechanism": router.mechanism,
        "differs_from_one_process": gap,
        "outside": outside,
        "same_energy": same_energy,
        "frozen": [o.frozen for o in outcomes],
        "state": router.check(),
    }


def mixed_ddp(rank, *, unused):
    """Ranks whose rows belong to different principles."""
    base = micro_model()
    schedule = schedule_of(base, OVERLAPPING)
    model = DistributedDataParallel(base, find_unused_parameters=unused)
    router = Router(model, schedule, plain_sgd, max_norm=None)
    start = whole(model)
    owners = [{"deep": 0, "shallow": 1}, {"deep": 0, "middle": 1}][rank]
    window = MixedWindow(router)
    for principle, part in owners.items():
        with window.part(principle):
            model(**my_rows(rank, part)).loss.backward()
    outcomes = window.step(0.5)
    wanted = dict(start)
    for other, owns in enumerate([{"deep": 0, "shallow": 1}, {"deep": 0, "middle": 1}]):
        for principle, part in owns.items():
            alone = micro_model()
            alone(**my_rows(other, part)).loss.backward()
            for name in schedule.route(principle).tensors:
                gradient = named_parameters(alone)[name].grad
                wanted[name] = wanted[name] - 0.5 * gradient / 2
    return {
        "order": list(outcomes),
        "gap": furthest(wanted, whole(model)),
        "state": router.check(),
    }


def other_routes(rank):
    base = micro_model()
    schedule = schedule_of(base, OVERLAPPING)
    model = DistributedDataParallel(base)
    router = Router(model, schedule, adamw)
    before = router.check()
    try:
        with router.route(("deep", "shallow")[rank]):
            model(**my_rows(rank, 0)).loss.backward()
            router.step(1e-3)
    except TrainingError as error:
        return {"error": str(error), "same": router.check() == before}
    return {"error": None}


def bad_row(rank):
    """A loss that is not finite on one rank alone."""
    base = micro_model()
    schedule = schedule_of(base, OVERLAPPING)
    model = DistributedDataParallel(base)
    router = Router(model, schedule, adamw)
    before = router.check()
    try:
        with router.route("deep"):
            scale = float("nan") if rank == 1 else 1.0
            (model(**my_rows(rank, 0)).loss * scale).backward()
            router.step(1e-3)
    except TrainingError as error:
        return {"code": error.code, "same": router.check() == before}
    return {"code": None}


def fsdp2(rank):
    base = micro_model()
    schedule = schedule_of(base, OVERLAPPING)
    for block in base.model.layers:
        fully_shard(block)
    model = fully_shard(base)
    router = Router(model, schedule, adamw, max_norm=0.1)

    def run(steps):
        outcomes = []
        for principle in steps:
            with router.route(principle):
                for part in (0, 1):
                    model(**my_rows(rank, part)).loss.backward()
                outcomes.append(router.step(1e-3))
        return outcomes

    outcomes = run(WARM)
    weights, energy = reference(WARM)
    gap = furthest(weights, whole(model))
    pairs = zip(energies(outcomes), energy, strict=True)
    energy_gap = max(
        abs(mine / theirs - 1)
        for of_mine, of_theirs in pairs
        for (_, mine), (_, theirs) in zip(of_mine, of_theirs, strict=True)
    )
    outside = confined(router, model, run)
    before = whole(model)
    window = MixedWindow(router)
    for principle, part in (("shallow", 0), ("middle", 1)):
        with window.part(principle):
            model(**my_rows(rank, part)).loss.backward()
    window.step(1e-3)
    bands = {*router.trained("shallow"), *router.trained("middle")}
    return {
        "mechanism": router.mechanism,
        "gap": gap,
        "outside": outside,
        "mixed": sorted(set(differing(before, whole(model))) ^ bands),
        "energy_gap": energy_gap,
    }


CASES = {
    "ddp-unused": lambda rank: ddp(rank, unused=True),
    "ddp": lambda rank: ddp(rank, unused=False),
    "mixed-ddp-unused": lambda rank: mixed_ddp(rank, unused=True),
    "mixed-ddp": lambda rank: mixed_ddp(rank, unused=False),
    "other-routes": other_routes,
    "bad-row": bad_row,
    "fsdp2": fsdp2,
    "trainer": governed_trainer,
    "sharded-trainer": sharded_trainer,
}


def main():
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    for name, case in CASES.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = case(rank, folder) if "trainer" in name else case(rank)
        (folder / f"{name}-{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
