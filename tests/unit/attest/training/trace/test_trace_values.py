import json
import subprocess
import sys

import pytest

from attest.training.trace.values import (
    EventScore,
    PrincipleShare,
    RowScore,
    Threshold,
    Trace,
    is_governed,
)

TRACE = Trace(
    tokens=3,
    gain=10.0,
    threshold=Threshold(2.0, 0.05, 0.01, 96),
    residual=0.012345678,
    points=4,
    principles=(
        PrincipleShare("refuse", 8.0, {"L03": 5.0, "L04": 3.0}, (4.0, 3.0, 1.0), 0.9),
        PrincipleShare("tone", 3.0, {"L00": 3.0}, (1.0, 1.0, 1.0), 0.1),
    ),
    events=(
        EventScore(7, "refuse", 3.2, 0.5, (RowScore("r-1", 0.9),), ("r-1", "k-2")),
    ),
)


@pytest.mark.parametrize(
    ("gain", "nats", "wanted"),
    [(5, 2, True), (2, 2, True), (1, 2, False), (-1, 0, False)],
)
def test_small_gains_are_not_put_down_to_training(gain, nats, wanted):
    assert is_governed(gain, Threshold(nats)) is wanted
    assert Trace(1, gain, Threshold(nats)).governed is wanted


def test_lead_is_a_fraction_of_the_gain():
    assert TRACE.lead == pytest.approx(0.5)
    assert Trace(1, 0.0, Threshold()).lead is None


def test_json_holds_everything_rounded():
    found = json.loads(json.dumps(TRACE.to_json()))
    assert found["governed"] is True
    assert found["residual"] == 0.0123
    assert found["threshold"]["rows"] == 96
    assert found["principles"][0]["layers"] == {"L03": 5.0, "L04": 3.0}
    assert found["events"][0]["rows"] == [{"id": "r-1", "score": 0.9}]
    assert found["events"][0]["samples"] == ["r-1", "k-2"]


def test_what_a_verifier_imports_loads_no_torch():
    modules = ("values", "exchange", "provenance", "lexical")
    code = "; ".join(f"import attest.training.trace.{name}" for name in modules)
    code += "; import attest.cli.trace, attest.cli._trace, sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert not {"torch", "numpy", "transformers"} & set(done.stdout.split())
