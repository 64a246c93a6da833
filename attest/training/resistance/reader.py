"""Reading `resistance.json`, written by somebody else.

Checked: the form, that a suite's digest is its own, that every curve is one that the
suite asks for and ends as it says, and that no run of an attack is left out while
others of it are shown. Not checked: whether the runs took place.
"""

from typing import Any

from attest._reader import Reader
from attest.canonical import canonical, read_object
from attest.errors import FormatError, UnsupportedVersionError
from attest.training.resistance.suite import Attack, Suite
from attest.training.resistance.values import SCHEMA, Count, Resistance, Run, Start

__all__ = ["MAX_BYTES", "parse_resistance"]

# 2,048 runs of 64 evaluations, with controls, are a tenth of it.
MAX_BYTES = 16 * 1024 * 1024
# Intervals over more seeds take seconds each.
_MAX_SEEDS = 32
_MAX_RUNS = 2048
_MAX_CONTROLS = 16
_KINDS = ("full", "sgd", "lora", "band", "outside", "benign", "restore")
_ENDED = ("fell", "held", "diverged")


def parse_resistance(data: bytes) -> Resistance:
    """What the file's bytes say.

    Raises:
        FormatError: not such a file, or figures that contradict each other.
        UnsupportedVersionError: another version of the file or of the suite.
    """
    value = read_object(data, max_bytes=MAX_BYTES)
    found = _resistance(Reader(value, document="resistance.json"), controls=True)
    if found.dumps() != data:
        raise FormatError("resistance.json: expected its canonical form, or no more")
    return found


def _resistance(reader: Reader, *, controls: bool) -> Resistance:
    if (schema := reader.text("schema")) != SCHEMA:
        raise UnsupportedVersionError(
            f"resistance.json: expected {SCHEMA}, found {schema!r}",
            hint="upgrade to the version that wrote it",
        )
    suite = _suite(reader.child("suite"))
    if suite.digest != reader.digest("suiteDigest"):
        raise reader.refuse("suiteDigest", "is not the digest of the suite")
    nested = reader.child("controls")
    if len(nested.value) > (_MAX_CONTROLS if controls else 0):
        raise reader.refuse("controls", "holds too many")
    runs = reader.children("runs")
    if len(runs) > _MAX_RUNS:
        raise reader.refuse("runs", f"holds more than {_MAX_RUNS}")
    starts = reader.child("principles")
    found = Resistance(
        suite=suite,
        constitution=reader.digest("constitution"),
        weights=reader.digest("weights"),
        environment=reader.child("environment").value,
        capabilities=reader.texts("capabilities"),
        before=_counts(reader.child("before")),
        starts={name: _start(starts.child(name)) for name in starts.value},
        runs=tuple(_run(run, suite) for run in runs),
        controls={
            name: _resistance(nested.child(name), controls=False)
            for name in nested.value
        },
    )
    _check_complete(reader, found)
    return found


def _suite(reader: Reader) -> Suite:
    attacks = []
    for item in reader.children("attacks"):
        kind = _one_of(item, "kind", _KINDS)
        rates = item.texts("rates")
        for rate in rates:
            _decimal(item, "rates", rate)
        if (kind == "restore") == bool(rates):
            raise item.refuse("rates", "must hold rates, unless it restores")
        attacks.append(Attack(kind, rates))
    seeds, at = _integers(reader, "seeds"), _integers(reader, "at")
    if not 1 <= len(seeds) <= _MAX_SEEDS or len(set(seeds)) < len(seeds):
        raise reader.refuse("seeds", f"must hold 1 to {_MAX_SEEDS} different numbers")
    if not at or at[0] < 1 or list(at) != sorted(set(at)):
        raise reader.refuse("at", "must hold ascending steps from 1 on")
    suite = Suite(
        reader.text("name"),
        tuple(attacks),
        seeds,
        at,
        rows=reader.integer("rows", least=1),
        rank=reader.integer("rank", least=1),
    )
    if len({attack.kind for attack in attacks}) < len(attacks):
        raise reader.refuse("attacks", "names a kind twice")
    if canonical(suite.document()) != canonical(dict(reader.value)):
        raise UnsupportedVersionError(
            "resistance.json: the suite runs in a way that this version does not know",
            hint="upgrade to the version that wrote it",
        )
    return suite


def _run(reader: Reader, suite: Suite) -> Run:
    points = reader.value.get("curve")
    if not isinstance(points, list) or not all(_is_pair(point) for point in points):
        raise reader.refuse("curve", "must hold pairs of a step and a count")
    run = Run(
        principle=reader.text("principle"),
        attack=_one_of(reader, "attack", _KINDS),
        rate=reader.text("rate"),
        seed=reader.integer("seed"),
        count=reader.integer("count", least=1),
        curve=tuple((step, kept) for step, kept in points),
        ended=_one_of(reader, "ended", _ENDED),
        after=_counts(reader.child("after")),
    )
    steps = [step for step, _ in run.curve]
    asked = [0, *suite.at]
    expected = [0, 0] if run.attack == "restore" else asked[: len(steps)]
    if not steps or steps != expected:
        raise reader.refuse("curve", "is not at the steps of the suite")
    if any(not 0 <= kept <= run.count for _, kept in run.curve):
        raise reader.refuse("curve", "counts more items than there are")
    fallen = [2 * kept < run.curve[0][1] for _, kept in run.curve]
    if any(fallen[:-1]) or fallen[-1] != (run.ended == "fell"):
        raise reader.refuse("ended", "is not how the curve ends")
    whole = run.attack == "restore" or len(steps) == len(asked)
    if run.ended == "held" and not whole:
        raise reader.refuse("ended", "is 'held' before the last step")
    return run


def _check_complete(reader: Reader, found: Resistance) -> None:
    """A run that was left out might be the worst one."""
    for principle, start in found.starts.items():
        for attack in found.suite.attacks:
            runs = found.of(principle, attack.kind)
            cells = sorted((run.rate, run.seed) for run in runs)
            asked = [
                (rate, seed) for rate in attack.rates for seed in found.suite.seeds
            ]
            if runs and cells != sorted(asked or [("0", 0)]):
                raise reader.refuse("runs", f"is not all of {attack.kind}")
            if any((r.curve[0][1], r.count) != (start.kept, start.count) for r in runs):
                raise reader.refuse("runs", "starts from another model")
    known = {attack.kind for attack in found.suite.attacks}
    for run in found.runs:
        if run.principle not in found.starts or run.attack not in known:
            raise reader.refuse("runs", "holds one that the suite does not ask for")


def _start(reader: Reader) -> Start:
    losses = reader.texts("firstToken")
    for loss in losses:
        _decimal(reader, "firstToken", loss)
    return Start(
        reader.integer("kept", least=0), reader.integer("count", least=1), losses
    )


def _counts(reader: Reader) -> dict[str, Count]:
    found = {}
    for name, pair in reader.value.items():
        if not _is_pair(pair) or not 0 <= pair[0] <= pair[1]:
            raise reader.refuse(name, "must be a count and the number of items")
        found[name] = (pair[0], pair[1])
    return found


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and [type(item) for item in value] == [int, int]


def _integers(reader: Reader, key: str) -> tuple[int, ...]:
    items = reader.value.get(key)
    if not isinstance(items, list) or any(type(item) is not int for item in items):
        raise reader.refuse(key, "must hold whole numbers")
    return tuple(items)


def _one_of(reader: Reader, key: str, known: tuple[str, ...]) -> Any:
    found = reader.text(key)
    if found not in known:
        raise reader.refuse(key, f"must be one of {', '.join(known)}")
    return found


def _decimal(reader: Reader, key: str, text: str) -> None:
    whole, dot, rest = text.partition(".")
    digits = (whole + rest).isascii() and whole.isdigit() and (rest or "0").isdigit()
    if not digits or len(text) > 24 or (dot and not rest):
        raise reader.refuse(key, "must hold numbers such as 0.001")
