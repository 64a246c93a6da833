"""How long a fresh interpreter takes until the library can be used.

    python bench/library/imports.py [--quick]

Each command runs in a process of its own, the commands take turns; a figure is the
median after one warm-up. The time of the bare interpreter is part of every line.
"""

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from common import Result, arguments, finish, grid, started

_COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import attest": ["-c", "import attest"],
    "import attest.verify": ["-c", "import attest.verify"],
    "import attest.client": ["-c", "import attest.client"],
    "attest --help": ["-m", "attest.cli", "--help"],
}


def _once(command: list[str]) -> tuple[float, float]:
    before, began = os.times(), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    wall, after = time.perf_counter() - began, os.times()
    return wall, sum(after[2:4]) - sum(before[2:4])


def main() -> None:
    options = arguments(__doc__, lambda _parser: None)
    runs, begun = 5 if options.quick else 21, started()
    script = Path(sys.executable).with_name("attest")
    commands = {name: [sys.executable, *rest] for name, rest in _COMMANDS.items()}
    commands["attest --help"] = [str(script), "--help"]
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for number in range(runs + 1):
        for name, command in commands.items():
            found = _once(command)
            if number:
                seen[name].append(found)
        print(f"round {number} of {runs}", file=sys.stderr, flush=True)
    rows = [["", "wall ms", "CPU ms", "wall ms, all"]]
    middles = {}
    for name, found in seen.items():
        walls = sorted(1e3 * wall for wall, _ in found)
        middles[name] = statistics.median(walls)
        cpu = 1e3 * statistics.fmean(cpu for _, cpu in found)  # counted in ticks
        spread = f"{walls[0]:.0f} to {walls[-1]:.0f}"
        rows.append([name, f"{middles[name]:.0f}", f"{cpu:.0f}", spread])
    print(grid(rows) + "\n")
    bars = {"import attest": 150.0, "import attest.verify": 150.0}
    names = [name for name in commands if name != "python -c pass"]
    results = [Result(name, middles[name], "ms", bars.get(name)) for name in names]
    finish(results, {"runs": seen}, options, begun)


if __name__ == "__main__":
    main()
