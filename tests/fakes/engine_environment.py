"""What an engine would see and do in some environment, in a process of its own."""

import json
import subprocess
import sys

from gateway.engine.spec import EngineSpec

__all__ = ["plain_spec", "result_of"]


def plain_spec(folder):
    """The least that an engine is told."""
    return EngineSpec(
        python=sys.executable,
        model_dir=folder,
        served_model_name="m",
        run_dir=folder / "run",
        reference=b"{}",
        dtype="float32",
    )


def result_of(script, *arguments, environment):
    """What a script says on its line `RESULT …`, in JSON."""
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    [line] = [x for x in done.stdout.splitlines() if x.startswith("RESULT")]
    return json.loads(line.removeprefix("RESULT"))
