from types import SimpleNamespace

import pytest

from attest.digests import digest
from attest.errors import (
    ConfigurationError,
    EvidenceUnavailableError,
    FormatError,
    RunMismatchError,
    VerificationError,
)
from attest.training.ledger import Ledger, LedgerCutError, LedgerEditedError
from attest.training.trace.provenance import (
    SignedLedger,
    check_data,
    check_trace,
    stated_data,
)
from attest.training.trace.values import trace_digests


def manifest(**training):
    return SimpleNamespace(predicate={"training": training})


@pytest.fixture
def ledger(tmp_path):
    path = tmp_path / "ledger.jsonl"
    heads = []
    with Ledger.create(path) as made:
        for number in range(11):
            made.append({"kind": "step", "number": number})
            if number in (4, 10):
                head = made.summary()
                heads.append({"treeSize": head.size, "root": head.root})
    stages = [{"name": str(n), "eventLog": head} for n, head in enumerate(heads)]
    return path, manifest(stages=stages)


def test_every_record_is_proven_to_the_last_root(ledger):
    path, signed = ledger
    found = SignedLedger(path, signed)
    root = signed.predicate["training"]["stages"][1]["eventLog"]["root"]
    for seq in range(11):
        proof = found.prove(seq).to_json()
        assert (proof["index"], proof["size"], proof["root"]) == (seq, 11, root)


def test_record_beyond_the_ledger_has_no_proof(ledger):
    with pytest.raises(FormatError):
        SignedLedger(*ledger).prove(11)


def test_line_that_changed_in_memory_is_not_proven(ledger):
    found = SignedLedger(*ledger)
    found._lines[3] = found._lines[3].replace(b"3", b"4")
    with pytest.raises(VerificationError):
        found.prove(3)


def test_edited_ledger_is_a_definite_no(ledger):
    path, signed = ledger
    path.write_bytes(path.read_bytes().replace(b'"number":2', b'"number":9'))
    with pytest.raises(LedgerEditedError):
        SignedLedger(path, signed)


def test_cut_ledger_is_a_definite_no(ledger):
    path, signed = ledger
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    with pytest.raises(LedgerCutError):
        SignedLedger(path, signed)


@pytest.mark.parametrize(
    "training",
    [{}, {"stages": []}, {"stages": "x"}, {"stages": [{"eventLog": {"root": 1}}]}],
)
def test_manifest_without_a_ledger_cannot_tell(ledger, training):
    with pytest.raises(EvidenceUnavailableError, match="no event log"):
        SignedLedger(ledger[0], manifest(**training))


@pytest.fixture
def folder(tmp_path):
    found = tmp_path / "trace"
    found.mkdir()
    for name in ("deltas-a.safetensors", "sketches.safetensors"):
        (found / name).write_bytes(name.encode())
    return found


def test_trace_of_the_manifest_passes(folder):
    check_trace(folder, manifest(trace=trace_digests(folder)))


@pytest.mark.parametrize("name", ["deltas", "sketches"])
def test_other_trace_is_a_definite_no(folder, name):
    stated = {**trace_digests(folder), name: digest(b"other")}
    with pytest.raises(RunMismatchError, match=name):
        check_trace(folder, manifest(trace=stated))


@pytest.mark.parametrize("stated", [{}, None, [], "x"])
def test_manifest_without_a_trace_cannot_tell(folder, stated):
    with pytest.raises(EvidenceUnavailableError):
        check_trace(folder, manifest(trace=stated))


def test_missing_trace_is_the_callers_fault(tmp_path, folder):
    stated = trace_digests(folder)
    with pytest.raises(ConfigurationError):
        check_trace(tmp_path / "nowhere", manifest(trace=stated))


def data(name, content):
    return manifest(
        stages=[{"name": "s", "data": [{"name": name, "digest": digest(content)}]}]
    )


def test_data_of_the_manifest_passes_and_missing_data_too(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b"a")
    check_data(tmp_path, data("a.jsonl", b"a"))
    check_data(tmp_path, data("b.jsonl", b"b"))


def test_other_data_is_a_definite_no(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b"a")
    with pytest.raises(RunMismatchError, match=r"a\.jsonl"):
        check_data(tmp_path, data("a.jsonl", b"b"))


@pytest.mark.parametrize("name", ["../a", "/etc/passwd", "a//b", ""])
def test_data_outside_the_run_is_not_read(tmp_path, name):
    with pytest.raises(FormatError):
        check_data(tmp_path, data(name, b"a"))


def test_data_is_listed_by_stage():
    found = manifest(
        stages=[
            {"name": "a", "data": [{"name": "x", "digest": "1"}, {"name": "y"}, 3]},
            {"name": "b", "data": [{"name": "z", "digest": "2"}]},
            {"name": "c", "data": 1},
            "d",
        ]
    ).predicate
    assert [item.name for item in stated_data(found, "a")] == ["x"]
    assert [item.name for item in stated_data(found)] == ["x", "z"]
