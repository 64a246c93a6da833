"""What governed training costs against plain training, in CPU seconds.

    python bench/library/training.py [--quick] [--seed 0]

Runs `bench/routing.py` (routed against unrouted steps, in rounds that take turns) and
`bench/profiles.py` (a governed stage of the demo with a recorder of profiles, against
the same stage without the recorder's own time). One thread.
"""

import statistics
import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from common import Result, arguments, finish, grid, started

sys.path.append(str(Path(__file__).parents[1]))

import profiles
import routing
import torch

from attest.training.profile.lca import ProfileRecorder

_ROUTED = "toggle, hashed every step"
_WAYS = (routing.BASELINE, _ROUTED, f"toggle, hashed every {routing.RARE}")


def _routing(options: Any) -> tuple[list[Result], dict[str, Any]]:
    # The other ways are docs/routing.md's.
    routing.WAYS = {way: routing.WAYS[way] for way in _WAYS}
    results, detail = [], {}
    for name in ("demo",) if options.quick else ("demo", "20M"):
        found = routing.measure(name, 3 if options.quick else 7, options.seed)
        detail[name] = found["ways"]
        for way in _WAYS[1:]:
            ratio = statistics.median(found["ways"][way]["ratios"])
            text = f"routed training, {name} model, {way}: CPU, unrouted"
            results.append(Result(text, ratio, "x", 1.0))
    return results, detail


def _profiles(options: Any) -> tuple[list[Result], dict[str, Any]]:
    results, detail = [], {}
    world = profiles.World(options.seed)
    rows = [["recorder", "samples", "principle", "residual", "in band"]]
    kinds: dict[str, dict[str, Any]] = {"as it is by default": {}}
    if not options.quick:
        kinds["every 10th step at the latest"] = {"every": 10}
    for name, dials in kinds.items():
        world.reset()
        recorder = ProfileRecorder(world.model, world.probes(), world.layout, **dials)
        timed = profiles.Timed(recorder)
        world.govern(timed)
        found = recorder.result(name)
        samples = len(found.curve)
        for principle in found.allocations:
            profile = found.profile(principle)
            rows.append(
                [
                    name,
                    str(samples),
                    principle,
                    f"{profile.residual:.3f}",
                    f"{profile.in_band or 0:.3f}",
                ]
            )
        mean = found.steps / (samples - 1)
        text = f"profile, {name} (a sample each {mean:.0f} steps): CPU, without"
        results.append(Result(text, timed.ratio(), "x", 1.2))
        half = found.steps // 2
        text = f"the same, second half of {found.steps} steps"
        results.append(Result(text, timed.ratio(half), "x"))
        detail[name] = {"samples": sorted(found.curve), "figures": rows[-3:]}
        print(f"profile: {name}", file=sys.stderr, flush=True)
    print(grid(rows) + "\n")
    return results, detail


def main() -> None:
    options = arguments(__doc__, _options)
    torch.set_num_threads(1)
    begun = started()
    routed, first = _routing(options)
    profiled, second = _profiles(options)
    detail = {"routing": first, "profiles": second, "seed": options.seed}
    finish(routed + profiled, detail, options, begun)


def _options(parser: ArgumentParser) -> None:
    parser.add_argument("--seed", type=int, default=0)


if __name__ == "__main__":
    main()
