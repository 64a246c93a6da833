"""A run directory held against its statement, before anybody signs the statement.

    run/training.json      the statement
    run/constitution.yaml  run/schedule.json  run/ledger.jsonl  run/data/
    run/profile.json  run/resistance.json  run/trace/  run/parent/

What the statement names must lie there with the digest that it states, and what lies
there must be stated. Not checked: whether the run took place, and whether its figures
are those of the model; `attest.figures` holds the figures against each other.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attest._reader import Reader
from attest.canonical import read_object
from attest.errors import EvidenceUnavailableError, FormatError, RunMismatchError
from attest.hashing import hash_tensors, scan_model
from attest.manifest import check_path
from attest.training._mismatch import HINT, expect_equal, mismatch
from attest.training.constitution import Constitution, Principle, load_constitution
from attest.training.evidence import check_profiles, check_resistance, curves_digest
from attest.training.ledger import LedgerSummary, verify_ledger
from attest.training.ledger.contents import Events
from attest.training.ledger.ranks import RanksCheck
from attest.training.trace.values import trace_digests
from attest.weights import tensor_root

__all__ = ["Bound", "bind", "required_entry"]

_MAX_JSON = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Bound:
    """A statement that fits its run.

    Attributes:
        statement: as it was, and for each principle of which the constitution requires
            something that was not measured, a `resistance` that says so.
        weights: tensor roots that the model to be signed must have, by who says so.
        checked: what was compared: its name, and words for people.
        unchecked: what could not be, one line each.
    """

    statement: dict[str, Any]
    weights: Mapping[str, str]
    checked: tuple[tuple[str, str], ...]
    unchecked: tuple[str, ...] = ()

    def check_weights(self, root: str) -> None:
        """Return when the tensor root of a model directory is the run's.

        Raises:
            RunMismatchError: it is another, or a stage ended with other weights.
        """
        for place, stated in self.weights.items():
            expect_equal(f"model directory, tensor root ({place})", stated, root)


def bind(run: Path, statement: Mapping[str, Any]) -> Bound:
    """Compare a run directory with its statement.

    Raises:
        RunMismatchError: a file is missing, not stated or has another digest, or the
            statement differs from the constitution; names file, expected and found.
        LedgerError: the ledger is not the one whose roots are stated.
        ConstitutionError: `constitution.yaml` is no constitution.
        FormatError: a member of the statement is missing or of another kind.
        EvidenceUnavailableError: a file is there and cannot be read.
    """
    return _Binding(run, Reader(statement, document="training statement")).bound()


def required_entry(principle: Principle) -> dict[str, Any] | None:
    """What a constitution requires of a principle, as a statement says it."""
    need = principle.requirement
    if need is None:
        return None
    return {
        "suite": need.attack_suite,
        "minStepsBelowHalf": need.min_steps_below_half,
        "onMiss": need.on_miss,
    }


class _Binding:
    """The comparison, part by part."""

    def __init__(self, run: Path, statement: Reader) -> None:
        self.run, self.statement = run, statement
        self.training = statement.child("training", optional=True)
        self.stages = self.training.children("stages")
        self.checked: list[tuple[str, str]] = []
        self.unchecked: list[str] = []
        self.weights: dict[str, str] = {}
        self.routes: dict[str, str] = {}

    def bound(self) -> Bound:
        constitution = self._constitution()
        principles = self._principles(constitution)
        self._schedule()
        self._data()
        self._stages()
        self._ledger(constitution)
        self._measured(constitution)
        self._trace()
        statement = dict(self.statement.value)
        if constitution is not None:
            statement["principles"] = principles
        return Bound(
            statement, self.weights, tuple(self.checked), tuple(self.unchecked)
        )

    # --- constitution -------------------------------------------------------------

    def _constitution(self) -> Constitution | None:
        path = self.run / "constitution.yaml"
        stated = self.statement.optional_child("constitution")
        if stated is None:
            if path.exists():
                raise mismatch("constitution.yaml", "to be stated", "no statement")
            return None
        _present(path)
        found = load_constitution(path)
        expect_equal("constitution.yaml", stated.digest("digest"), found.digest)
        for key, value in (("id", found.id), ("version", found.version)):
            expect_equal(f"constitution.yaml, {key}", stated.text(key), value)
        self.checked.append(("constitution", f"{found.id} {found.version}"))
        return found

    def _principles(self, constitution: Constitution | None) -> list[dict[str, Any]]:
        stated = self.statement.children("principles")
        if constitution is None:
            return []
        expect_equal(
            "constitution.yaml, principles",
            [item.text("id") for item in stated],
            [principle.id for principle in constitution.principles],
        )
        return [
            self._principle(*pair)
            for pair in zip(stated, constitution.principles, strict=True)
        ]

    def _principle(self, stated: Reader, principle: Principle) -> dict[str, Any]:
        place = f"constitution.yaml, principle {principle.id!r}"
        expect_equal(place, stated.digest("digest"), principle.digest)
        expect_equal(f"{place}, class", stated.text("class"), principle.kind)
        required = required_entry(principle)
        resistance = stated.optional_child("resistance")
        entry = dict(stated.value)
        if resistance is not None:
            expect_equal(
                f"{place}, requirement", resistance.value.get("required"), required
            )
        elif required is not None:
            # An authority that reads the statement alone must see what was asked for.
            entry["resistance"] = {
                "suite": required["suite"],
                "required": required,
                "measured": None,
                "met": None,
            }
        return entry

    def _schedule(self) -> None:
        path = self.run / "schedule.json"
        stated = self.training.optional_digest("schedule")
        if not self._digest_of("schedule.json", stated):
            return
        schedule = Reader(_json(path), document="schedule.json")
        constitution = self.statement.child("constitution", optional=True)
        expect_equal(
            "schedule.json, constitution",
            constitution.value.get("digest"),
            schedule.value.get("constitution"),
        )
        routes = {item.text("principle"): item for item in schedule.children("routes")}
        for principle in self.statement.children("principles"):
            name, route = principle.text("id"), routes.get(principle.text("id"))
            routing = principle.child("routing", optional=True)
            tensors = routing.child("tensors", optional=True)
            place = f"schedule.json, route of {name!r}"
            expect_equal(
                place,
                tensors.value.get("digest"),
                None if route is None else route.digest("digest"),
            )
            expect_equal(
                f"{place}, layers",
                routing.value.get("layers", []),
                [] if route is None else route.value.get("layers"),
            )
        self.routes = {name: item.digest("digest") for name, item in routes.items()}

    # --- files --------------------------------------------------------------------

    def _data(self) -> None:
        found: dict[str, str] = {}
        for stage in self.stages:
            for item in stage.children("data"):
                name = check_path(item.text("name"))
                if "uri" in item.value:
                    where = item.text("uri")
                    self.unchecked.append(f"data/{name}, which is held at {where}")
                    continue
                path = self.run / "data" / name
                found[name] = _file_digest(path, f"data/{name}")
                expect_equal(f"data/{name}", item.digest("digest"), found[name])
        held = self._held_out(found)
        if found or held:
            self.checked.append(("data", f"{len(found)} files, {held} held out"))

    def _held_out(self, found: Mapping[str, str]) -> int:
        """Every evaluation must be on a file of the run, and on none of training."""
        wanted = {
            item.digest("data"): item.path
            for item in self.statement.children("evaluation")
            if "data" in item.value
        }
        for principle in self.statement.children("principles"):
            item = principle.optional_child("evaluation")
            if item is not None and "data" in item.value:
                wanted[item.digest("data")] = item.path
        trained = {value: name for name, value in found.items()}
        folder = self.run / "data"
        others = (
            {
                _file_digest(path, path.name)
                for path in folder.iterdir()
                if path.is_file()
            }
            if wanted and folder.is_dir()
            else set()
        )
        for value, place in wanted.items():
            if value in trained:
                raise RunMismatchError(
                    f"run: data/{trained[value]}: expected held-out rows for {place}, "
                    "found rows of a training stage",
                    hint="measure on rows that no stage was trained on",
                )
            if value not in others:
                raise mismatch(f"data/ ({place})", f"a file with {value}", "none")
        return len(wanted)

    def _digest_of(self, name: str, stated: str | None) -> bool:
        """Whether a file is stated and there, with the digest that is stated."""
        path = self.run / name
        if stated is None:
            if path.exists():
                raise mismatch(name, "its digest in the statement", "none")
            return False
        expect_equal(name, stated, _file_digest(path, name))
        self.checked.append((name.partition(".")[0], name))
        return True

    def _measured(self, constitution: Constitution | None) -> None:
        """Profile and resistance: the files' digests, then every figure of theirs."""
        principles = self.statement.children("principles")
        profile = self._digest_of(
            "profile.json", self.training.optional_digest("profile")
        )
        curves = self._digest_of("resistance.json", curves_digest(principles))
        if (profile or curves) and constitution is None:
            raise mismatch(
                "constitution.yaml", "it, since something was measured", "none"
            )
        if profile:
            check_profiles(_bytes(self.run / "profile.json"), principles)
        if curves and constitution is not None:
            data = _bytes(self.run / "resistance.json")
            root = check_resistance(data, principles, constitution)
            self.weights["resistance.json, attacked"] = root

    def _trace(self) -> None:
        stated, folder = self.training.optional_child("trace"), self.run / "trace"
        if stated is None:
            if folder.exists():
                raise mismatch("trace/", "its digests in the statement", "none")
            return
        _present(folder)
        try:
            found = trace_digests(folder)
        except FileNotFoundError as error:
            raise mismatch("trace/", "its files", f"no {error.filename}") from error
        except OSError as error:
            raise _unreadable("trace/", error) from error
        for name, value in found.items():
            expect_equal(f"trace/, {name}", stated.digest(name), value)
        self.checked.append(("trace", "trace/"))

    # --- stages and ledger --------------------------------------------------------

    def _stages(self) -> None:
        """The weights of each stage are those that the stage before left."""
        before: tuple[str, str] | None = None
        bases = []
        for stage in self.stages:
            name = stage.text("name")
            base = stage.optional_digest("base")
            if before is not None and base is not None:
                expect_equal(
                    f"stage {name}, base (what {before[0]} left)", before[1], base
                )
            bases += [base] if base else []
            result = stage.optional_digest("result")
            before = (name, result) if result else None
        if before is not None:
            self.weights[f"stage {before[0]}, result"] = before[1]
        parent = self.run / "parent"
        if bases and parent.is_dir():
            found = tensor_root(hash_tensors(scan_model(parent)))
            if found not in bases:
                raise mismatch("parent/", f"the base of a stage ({bases[-1]})", found)
            self.checked.append(("parent", "parent/"))

    def _ledger(self, constitution: Constitution | None) -> None:
        path = self.run / "ledger.jsonl"
        if not self.stages:
            if path.exists():
                raise mismatch("ledger.jsonl", "a stage that states its root", "none")
            return
        _present(path)
        heads: list[LedgerSummary] = []
        for stage in self.stages:
            log = stage.child("eventLog")
            head = LedgerSummary(log.integer("treeSize", least=0), log.digest("root"))
            if heads and head.size < heads[-1].size:
                place = f"{log.path}.treeSize"
                raise mismatch(place, f"at least {heads[-1].size}", head.size)
            heads.append(head)
        events = Events(
            constitution, self.training.optional_digest("schedule"), self.routes
        )
        ranks = RanksCheck()

        def visit(record: dict[str, Any]) -> None:
            ranks.visit(record)
            events.visit(record)

        found = verify_ledger(path, *heads, visit=visit)
        ranks.check(path)
        events.check([stage.text("name") for stage in self.stages], heads)
        if events.resumed:
            verify_ledger(path, found, *events.resumed)
        words = f"{found.size} records, {len(heads)} stages, {found.root}"
        self.checked.append(("ledger", words))


def _present(path: Path) -> None:
    if not path.exists():
        raise mismatch(path.name, "it in the run directory", "no such file")


def _unreadable(name: str, error: OSError) -> EvidenceUnavailableError:
    return EvidenceUnavailableError(f"run: {name}: cannot be read: {error.strerror}")


def _file_digest(path: Path, name: str) -> str:
    try:
        with path.open("rb") as file:
            return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise mismatch(name, "it in the run directory", "no such file") from error
    except OSError as error:
        raise _unreadable(name, error) from error


def _json(path: Path) -> dict[str, Any]:
    try:
        return read_object(_bytes(path), max_bytes=_MAX_JSON)
    except FormatError as error:
        raise RunMismatchError(f"run: {path.name}: {error}", hint=HINT) from error


def _bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_JSON + 1)
    except OSError as error:
        raise _unreadable(path.name, error) from error
