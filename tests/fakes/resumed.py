"""A small run with two stages, dropout and a recorder, to be killed and taken up again.

    python -m fakes.resumed FOLDER SEED...

makes a run without a stop in FOLDER/whole, and for each seed one in FOLDER/SEED whose
process is killed with SIGKILL, again and again at places that the seed draws, until a
process comes through. Torch is loaded once; every process is a fork.
"""

import json
import os
import random
import signal
import sys
import time
from functools import partial
from pathlib import Path

import torch
from fakes.training import OVERLAPPING, micro_model, schedule_of

from attest.training.batches import Example, Sampler
from attest.training.ledger import float_hex
from attest.training.loop import Plan, Trainer
from attest.training.resume import Resumable, random_states

__all__ = ["EVERY", "STEPS", "Counter", "train"]

NAMES = ("deep", "shallow", "middle")
STEPS, EVERY = 30, 4


class Counter:
    """An observer with a state: steps by principle, and what it last saw."""

    def __init__(self, model):
        self.model, self.counts, self.sum = model, {}, torch.zeros(())

    def before(self, principle):
        pass

    def after(self, principle):
        self.counts[str(principle)] = self.counts.get(str(principle), 0) + 1
        with torch.no_grad():
            self.sum = self.sum + sum(p.sum() for p in self.model.parameters())
        return {"sum": float_hex(float(self.sum))}

    def state_dict(self):
        return {"counts": dict(self.counts), "sum": self.sum.clone()}

    def load_state_dict(self, state):
        self.counts, self.sum = dict(state["counts"]), state["sum"].clone()


def _rows():
    generator = torch.Generator().manual_seed(7)

    def tokens():
        return tuple(torch.randint(8, 64, (6,), generator=generator).tolist())

    return [
        Example(f"{name}-{number:02d}", name, tokens(), tokens())
        for name in NAMES
        for number in range(8)
    ]


def _model():
    model = micro_model()
    for block in model.model.layers:
        block.self_attn.attention_dropout = 0.1
    return model


def train(run, *, steps=STEPS, every=EVERY, hook=lambda _: None):
    """Both stages into `run`; returns everything that must be the same at the end.

    `hook` is called after every step, after its checkpoint.
    """
    torch.manual_seed(3)
    random.seed(3)  # a fork draws a seed of its own
    model = _model()
    counter = Counter(model)
    last = {}

    def hooked(train_stage, *, state, after):
        def all_of(stage):
            after(stage)
            last.clear()
            last.update(stage.state_dict() if stage.done == steps else {})
            hook(stage)

        train_stage(state=state, after=all_of)

    with Resumable(run, model, every=every, parts={"counter": counter}) as resumable:
        trainer = Trainer(
            model, resumable.ledger, progress=lambda *_: None, observers=[counter]
        )
        base = partial(
            trainer.unrouted,
            Plan("base", steps, 6, 1e-3),
            Sampler(_rows(), seed=1),
        )
        governed = partial(
            trainer.governed,
            Plan("governed", steps, 2, 1e-3),
            Sampler(_rows(), seed=2),
            constitution=OVERLAPPING,
            schedule=schedule_of(model, OVERLAPPING),
        )
        resumable.stage("base", {"seed": 1}, partial(hooked, base))
        drawn = resumable.once("drawn", lambda: torch.rand(3).tolist())
        resumable.stage("governed", {"seed": 2}, partial(hooked, governed))
    return {
        "model": model.state_dict(),
        "counter": counter.state_dict(),
        "random": random_states(),
        "drawn": drawn,
        "stage": last,
    }


def _fork(run):
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        torch.save(train(run), run / "end.pt.new")
        (run / "end.pt.new").rename(run / "end.pt")
        status = 0
    finally:
        os._exit(status)


def _size(run):
    path = run / "ledger.jsonl"
    return path.stat().st_size if path.exists() else 0


def killed(run, seed):
    """Train `run` to its end through many deaths; returns how many there were."""
    run.mkdir()
    draw = random.Random(seed)
    deaths = 0
    while not (run / "end.pt").exists():
        child = _fork(run)
        # Far enough that some process gets past its checkpoint.
        enough = _size(run) + draw.randrange(12_000)
        while _size(run) < enough and os.waitpid(child, os.WNOHANG)[0] == 0:
            time.sleep(0.002)
        time.sleep(draw.random() * 0.03)
        try:
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            deaths += os.WIFSIGNALED(status)
        except (ProcessLookupError, ChildProcessError):
            pass
        if deaths > 100:
            raise RuntimeError("no process came through")
    return deaths


def main():
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    whole = folder / "whole"
    whole.mkdir()
    os.waitpid(_fork(whole), 0)
    deaths = {seed: killed(folder / seed, int(seed)) for seed in sys.argv[2:]}
    sys.stdout.write(json.dumps(deaths))


if __name__ == "__main__":
    main()
