import contextlib
import json
import math
import resource
import signal
import subprocess
import sys
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attest.canonical import canonical
from attest.cli.exits import ExitCode, exit_code
from attest.digests import digest
from attest.errors import FormatError, LedgerError
from attest.log.merkle import MerkleTree, leaf_hash, verify_inclusion
from attest.training.ledger import (
    MAX_RECORD_BYTES,
    Ledger,
    LedgerCutError,
    LedgerEditedError,
    LedgerOrderError,
    LedgerSummary,
    float_hex,
    hex_float,
    read_ledger,
    verify_ledger,
)
from attest.training.ledger.form import record_line


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledger.jsonl"


def fill(path, count=10):
    with Ledger.create(path) as ledger:
        for step in range(count):
            ledger.append({"step": step, "loss": float_hex(1 / (step + 1))})
        return ledger.summary()


def lines(path):
    return path.read_bytes().splitlines(keepends=True)


def rewrite(path, rows):
    path.write_bytes(b"".join(rows))


def test_records_come_back(path):
    summary = fill(path)
    assert verify_ledger(path, summary) == summary
    assert [row["seq"] for row in read_ledger(path)] == list(range(10))
    assert hex_float(next(islice(read_ledger(path), 3, None))["loss"]) == 0.25


def test_lines_are_canonical(path):
    fill(path)
    for line in lines(path):
        assert line == canonical(json.loads(line)) + b"\n"


def test_root_is_a_merkle_root_with_inclusion_proofs(path):
    summary = fill(path)
    tree = MerkleTree()
    leaves = [line[:-1] for line in lines(path)]
    for leaf in leaves:
        tree.append(leaf)
    assert summary.root == "sha256:" + tree.root().hex()
    verify_inclusion(
        leaf_hash(leaves[4]),
        index=4,
        size=10,
        proof=tree.inclusion_proof(4),
        root=tree.root(),
    )


def test_empty(path):
    Ledger.create(path).close()
    assert verify_ledger(path).size == 0


@pytest.mark.parametrize(
    "first", [LedgerSummary(0, "sha256:" + "0" * 64), LedgerSummary(-1, digest(b""))]
)
def test_head_that_no_ledger_can_have(path, first):
    whole = fill(path)
    with pytest.raises(LedgerEditedError):
        verify_ledger(path, first, whole)


def test_empty_head_hides_no_edit(path):
    whole, empty = fill(path), LedgerSummary(0, digest(b""))
    verify_ledger(path, empty, whole)
    rows = lines(path)
    rewrite(path, [rows[0].replace(b"3f8", b"3f7"), *rows[1:]])
    with pytest.raises(LedgerEditedError):
        verify_ledger(path, empty, whole)


def test_definite_no_has_its_exit_code(path):
    for error in (LedgerCutError, LedgerEditedError, LedgerOrderError):
        assert exit_code(error("x")) is ExitCode.FALSE
    assert exit_code(LedgerError("x")) is ExitCode.CONFIGURATION


def test_stage_summaries_are_prefixes(path):
    with Ledger.create(path) as ledger:
        ledger.append({"step": 0})
        first = ledger.summary()
        ledger.append({"step": 1})
        whole = ledger.summary()
    assert verify_ledger(path, whole, first) == whole


def _duplicate_key(rows):
    return [*rows[:4], rows[4][:-2] + b',"seq":4}\n', *rows[5:]]


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        (lambda r: r[:-1], LedgerCutError, "expected 10 records, found 9"),
        (lambda r: r[:4] + r[5:], LedgerCutError, "record 4 is missing"),
        (lambda r: r[1:], LedgerCutError, "record 0 is missing"),
        (lambda r: [*r[:-1], r[-1][:-1]], LedgerCutError, "record 9 is torn"),
        (lambda r: [*r[:-1], r[-1][:9]], LedgerCutError, "record 9 is torn"),
        (lambda r: [r[1], r[0], *r[2:]], LedgerOrderError, "found 1"),
        (lambda r: r[::-1], LedgerOrderError, "out of order"),
        (lambda r: [r[0].replace(b"3f8", b"3f7"), *r[1:]], LedgerEditedError, "0 to 9"),
        (lambda r: [*r[:4], r[3], *r[5:]], LedgerEditedError, "stands twice"),
        (lambda r: [*r, b'{"seq":10}\n'], LedgerEditedError, "were added"),
        (lambda r: [*r[:4], b"\n", *r[5:]], LedgerEditedError, "record 4"),
        (lambda r: [*r[:4], b"[]\n", *r[5:]], LedgerEditedError, "record 4"),
        (lambda r: [*r[:4], b'{"seq":true}\n'], LedgerEditedError, "no number"),
        (_duplicate_key, LedgerEditedError, "same key twice"),
    ],
)
def test_tampering(path, change, error, match):
    summary = fill(path)
    before = lines(path)
    rewrite(path, change(before))
    assert lines(path) != before
    with pytest.raises(error, match=match):
        verify_ledger(path, summary)


def test_renumbered_after_a_drop(path):
    summary = fill(path)
    rows = [json.loads(line) for line in lines(path)]
    del rows[4]
    rewrite(path, [canonical({**r, "seq": n}) + b"\n" for n, r in enumerate(rows)])
    verify_ledger(path)  # without a signed root nothing can be seen
    with pytest.raises(LedgerCutError, match="found 9"):
        verify_ledger(path, summary)


def test_edit_is_located_between_stages(path):
    with Ledger.create(path) as ledger:
        heads = []
        for step in range(9):
            ledger.append({"step": step})
            if step % 3 == 2:
                heads.append(ledger.summary())
    rows = lines(path)
    rewrite(path, [*rows[:4], rows[4].replace(b'"step":4', b'"step":7'), *rows[5:]])
    with pytest.raises(LedgerEditedError, match="records 3 to 5"):
        verify_ledger(path, *heads)


def test_another_runs_root(path):
    fill(path)
    with pytest.raises(LedgerEditedError, match="expected root"):
        verify_ledger(path, LedgerSummary(10, "sha256:" + "0" * 64))


def test_resume_continues_the_same_tree(tmp_path):
    whole = fill(tmp_path / "a", 10)
    fill(tmp_path / "b", 6)
    with Ledger.resume(tmp_path / "b") as ledger:
        for step in range(6, 10):
            ledger.append({"step": step, "loss": float_hex(1 / (step + 1))})
        assert ledger.summary() == whole
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_resume_removes_a_torn_record(path):
    fill(path, 5)
    good = path.read_bytes()
    path.write_bytes(good + b'{"loss":"3f80')
    with Ledger.resume(path) as ledger:
        assert ledger.size == 5
        assert ledger.append({"step": 5}) == 5
    assert verify_ledger(path).size == 6


def test_resume_refuses_a_changed_ledger(path):
    fill(path)
    rows = lines(path)
    rewrite(path, [rows[1], rows[0], *rows[2:]])
    with pytest.raises(LedgerOrderError):
        Ledger.resume(path)
    rewrite(path, [b"x\n", *rows[1:]])
    with pytest.raises(LedgerEditedError):
        Ledger.resume(path)


def test_never_overwritten(path):
    fill(path)
    with pytest.raises(LedgerError, match="exists already"):
        Ledger.create(path)


def test_one_writer(path):
    with Ledger.create(path), pytest.raises(LedgerError, match="another process"):
        Ledger.resume(path)


def test_no_such_file(path):
    for attempt in (Ledger.resume, verify_ledger, lambda p: next(read_ledger(p))):
        with pytest.raises(LedgerError, match="No such file"):
            attempt(path)
    with pytest.raises(LedgerError, match="No such file"):
        Ledger.create(path / "below")


@pytest.mark.parametrize(
    "record",
    [{"seq": 3}, {"x": 2**60}, {"x": object()}, {"x": "a" * MAX_RECORD_BYTES}],
)
def test_refused_record_leaves_no_trace(path, record):
    with Ledger.create(path) as ledger:
        ledger.append({"step": 0})
        with pytest.raises(LedgerError):
            ledger.append(record)
        ledger.append({"step": 1})
        summary = ledger.summary()
    assert verify_ledger(path, summary).size == 2


def test_full_disk_keeps_earlier_records(path):
    with Ledger.create(path) as ledger:
        ledger.append({"step": 0})
        room = path.stat().st_size + 4
        old = resource.getrlimit(resource.RLIMIT_FSIZE)
        before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, old[1]))
        try:
            with pytest.raises(LedgerError, match="cannot be written"):
                ledger.append({"step": 1})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, old)
            signal.signal(signal.SIGXFSZ, before)
    assert verify_ledger(path).size == 1


def test_kill_loses_at_most_the_record_in_progress(path):
    code = (
        "import sys; from pathlib import Path\n"
        "from attest.training.ledger import Ledger\n"
        "ledger = Ledger.create(Path(sys.argv[1]))\n"
        "while True: print(ledger.append({'pad': 'x' * 200}), flush=True)\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE
    )
    acknowledged = [int(child.stdout.readline()) for _ in range(500)][-1]
    child.kill()
    rest = child.communicate()[0].split()
    acknowledged = max([acknowledged, *map(int, rest[:-1])])
    with Ledger.resume(path) as ledger:
        assert ledger.size > acknowledged
    verify_ledger(path)


# Keys that sort differently by code points and by UTF-16 units among them.
TEXT = st.text(max_size=6) | st.sampled_from(
    ['\x7f\x00\x1f"\\/\b\f\n\r\t', "\U0001f600", "\uffee", "\u2028"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | TEXT | st.integers(-(2**53) + 1, 2**53 - 1),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4)
    ),
    max_leaves=20,
)


def depth(value):
    if isinstance(value, dict | list):
        items = value.values() if isinstance(value, dict) else value
        return 1 + max(map(depth, items), default=0)
    return 0


@given(st.dictionaries(TEXT, VALUES, max_size=5).filter(lambda v: depth(v) <= 8))
def test_line_is_rfc_8785(record):
    assert record_line(record) == canonical(record)


class Name(str):
    __slots__ = ()


@pytest.mark.parametrize(
    "record",
    [
        {"a": ("x", 1)},
        {"a": Name("x")},
        {Name("b"): 1, "a": 2},
        {"\U0001f600": 1, "\uffee": 2},
    ],
)
def test_unusual_types_are_rfc_8785_too(record):
    assert record_line(record) == canonical(record)


def nested(levels):
    return {"a": nested(levels - 1)} if levels else {}


@pytest.mark.parametrize(
    "record",
    [
        {"a": 0.5},
        {"a": [float("nan")]},
        {"a": {"b": float("inf")}},
        {"a": 2**53},
        {"a": -(2**53)},
        {"a": "\ud800"},
        {"\ud800": 1},
        {"a": b"x"},
        {"a": {1, 2}},
        {1: 2},
        nested(8),
    ],
)
def test_record_that_no_reader_would_take_is_not_written(path, record):
    with Ledger.create(path) as ledger, pytest.raises(LedgerError):
        ledger.append(record)
    assert path.read_bytes() == b""


def test_deepest_record_can_be_read_back(path):
    with Ledger.create(path) as ledger:
        ledger.append(nested(7))
    assert verify_ledger(path).size == 1


@given(st.floats(width=32))
def test_float_hex_round_trip(value):
    found = hex_float(float_hex(value))
    assert found == value or (math.isnan(found) and math.isnan(value))


def test_float_hex_beyond_a_single():
    assert hex_float(float_hex(-1e300)) == -math.inf
    for bad in ("", "zz", "3f8000", "3f80000000"):
        with pytest.raises(FormatError):
            hex_float(bad)


@given(st.binary(max_size=300))
def test_any_bytes_verify_or_are_refused(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("ledger") / "ledger.jsonl"
    path.write_bytes(data)
    with contextlib.suppress(LedgerError):
        assert verify_ledger(path).size == data.count(b"\n")
