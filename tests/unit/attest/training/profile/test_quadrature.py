from types import SimpleNamespace

import pytest
import torch
from torch import nn

from attest.training.profile.gap import Gap
from attest.training.profile.probe import Probe
from attest.training.profile.quadrature import EASIEST, Drop, integrate

UNITS = {"blocks.0": "L00", "blocks.1": "L01"}


class Toy(nn.Module):
    """A loss of two numbers, one per block."""

    def __init__(self, loss):
        super().__init__()
        one = [nn.Parameter(torch.zeros((), dtype=torch.float64)) for _ in range(2)]
        self.blocks = nn.ParameterList(one)
        self._loss = loss

    def forward(self, scale):
        return SimpleNamespace(loss=self._loss(self.blocks[0], self.blocks[1]) * scale)


def probe(scales=(1.0,)):
    one = [{"scale": torch.tensor(s, dtype=torch.float64)} for s in scales]
    mean = {"scale": torch.tensor(sum(scales) / len(scales), dtype=torch.float64)}
    return Probe("p", (), mean, tuple(one), (1,) * len(scales), len(scales), "")


def walk(loss, *steps, allowed=1e-6, scales=(1.0,)):
    """Parts over a straight line from the origin that these steps make together."""
    model = Toy(loss)
    start = model(torch.tensor(1.0)).loss.item()
    gap = Gap(merge=False)
    for number, change in enumerate(steps):
        tensors = [torch.tensor(value, dtype=torch.float64) for value in change]
        gap.add("s", step=number, change=dict(zip(UNITS, tensors, strict=True)))
        with torch.no_grad():
            for index, value in enumerate(tensors):
                model.blocks[index].add_(value)
    end = model(torch.tensor(1.0)).loss.item()
    mean = sum(scales) / len(scales)
    drop = Drop(probe(scales), start * mean, end * mean, allowed)
    [(_, parts, effort)] = integrate(gap, model, [drop], units=UNITS)
    places = [p.item() for p in model.blocks]
    assert places == [pytest.approx(sum(s[i] for s in steps)) for i in (0, 1)]
    return parts, effort, start - end


def test_one_point_is_exact_for_a_parabola():
    parts, effort, _ = walk(lambda x, y: x**2 + 3 * y, (2.0, -1.0))
    assert effort == EASIEST
    assert parts == [[{"L00": pytest.approx(-4), "L01": pytest.approx(3)}]]


@pytest.mark.parametrize(("power", "effort"), [(2, 0), (6, 1), (12, 2)])
def test_more_points_are_taken_for_higher_powers(power, effort):
    parts, found, drop = walk(lambda x, y: (x + 0.5 * y) ** power, (1.0, 1.0))
    assert found == effort
    assert sum(parts[0][0].values()) == pytest.approx(drop, rel=1e-9)
    # The gradient is (1, 1/2) times a number all along: two thirds, one third.
    assert parts[0][0]["L00"] == pytest.approx(2 * parts[0][0]["L01"])


def test_a_wall_is_halved_until_it_adds_up():
    def wall(x, _y):
        return torch.sigmoid(50 * (x - 0.3))

    parts, effort, drop = walk(wall, (1.0, 0.0), allowed=0.01)
    assert effort > 2
    assert sum(parts[0][0].values()) == pytest.approx(drop, abs=0.01)


def test_what_cannot_be_measured_ends():
    """A loss that jumps has no gradient that tells."""
    calls = []

    def jump(x, _y):
        calls.append(1)
        return (x > 0.3).double() + 0 * x

    parts, _, drop = walk(jump, (1.0, 0.0))
    assert parts == [[{"L00": 0.0}]]
    assert drop == -1
    assert len(calls) < 130


def test_each_step_has_its_own_part():
    parts, _, _ = walk(lambda x, y: x**2 + y, (3.0, 0.0), (-1.0, 4.0))
    # On the line from (0, 0) to (2, 4) the mean gradient is (2, 1).
    assert parts == [
        [
            {"L00": pytest.approx(-6), "L01": pytest.approx(0)},
            {"L00": pytest.approx(2), "L01": pytest.approx(-4)},
        ]
    ]


def test_each_chunk_has_its_own_part():
    parts, _, _ = walk(lambda x, _y: x, (1.0, 0.0), scales=(1.0, 5.0))
    assert [row[0]["L00"] for row in parts] == [pytest.approx(-1), pytest.approx(-5)]


def test_a_tensor_without_influence_has_no_part():
    parts, _, _ = walk(lambda x, _y: x, (1.0, 7.0))
    assert parts == [[{"L00": pytest.approx(-1)}]]


def test_merged_moves_are_one_per_source():
    gap = Gap(merge=True)
    for step, source in enumerate(["s", "t", "s"]):
        gap.add(source, step=step, change={"w": torch.ones(2)})
    assert [(m.source, m.step) for m in gap.moves] == [("s", 0), ("t", 1)]
    assert torch.equal(gap.moves[0].change["w"], torch.full((2,), 2.0))
    assert torch.equal(gap.total()["w"], torch.full((2,), 3.0))
    assert gap.steps == 3
