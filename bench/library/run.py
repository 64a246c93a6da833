"""Library, loading and training: every script of this folder, one after the other.

    python bench/library/run.py [--quick] [--only imports,log] [--out DIRECTORY]

Prints what each of them prints, and in the end one table of all targets. Writes
`library.json`. Exits 1 where a script failed; a missed target is no failure.
"""

import json
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from common import Result, grid, table

_SCRIPTS = ("imports", "verifying", "log", "loading", "training")


def _options() -> Any:
    parser = ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few and short rounds")
    parser.add_argument("--only", default="", help="names of scripts, with commas")
    parser.add_argument("--out", type=Path, default=Path())
    return parser.parse_args()


def _run(name: str, options: Any, folder: Path) -> dict[str, Any] | None:
    """What a script wrote; None where it failed."""
    out = folder / f"{name}.json"
    command = [sys.executable, str(Path(__file__).with_name(f"{name}.py"))]
    command += ["--out", str(out), *(["--quick"] if options.quick else [])]
    print(f"\n### {name}\n", flush=True)
    began = time.monotonic()
    done = subprocess.run(command, check=False)
    print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    if done.returncode or not out.exists():
        return None
    found: dict[str, Any] = json.loads(out.read_text())
    return found


def _results(value: dict[str, Any]) -> list[Result]:
    lines = ({**line} for line in value["results"])
    return [
        Result(**{key: item for key, item in line.items() if key != "verdict"})
        for line in lines
    ]


def main() -> int:
    options = _options()
    chosen = [n for n in _SCRIPTS if not options.only or n in options.only.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        found = {name: _run(name, options, Path(folder)) for name in chosen}
    made = {name: value for name, value in found.items() if value is not None}
    print("\n### all\n")
    print(table([line for value in made.values() for line in _results(value)]) + "\n")
    noise = [["script", "others, of all cores", "steal", "load at its end"]]
    for name, value in made.items():
        shares = value["noise"]
        others, steal = f"{shares['others']:.0%}", f"{shares['steal']:.1%}"
        noise.append([name, others, steal, f"{shares['load']}"])
    print(grid(noise))
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "library.json").write_text(json.dumps(made, indent=1) + "\n")
    failed = [name for name, value in found.items() if value is None]
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
