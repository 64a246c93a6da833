import http.client
import json
import subprocess
import sys
import urllib.error
import urllib.request

import pytest
from fakes.log import SignedLog
from fakes.operated import run_command

from attest.cli._state import state_lock
from attest.keys import Algorithm, PrivateKey
from attest.log.checkpoint import cosignatures, parse_checkpoint
from attest.log.note import KeyKind, Note, NoteKey, NoteSigner, parse_signatures
from attest.log.witness import format_submission
from attest.signers.file import write_private_key


@pytest.fixture
def log():
    log = SignedLog(witnesses=0)
    log.tree.append(b"one")
    return log


@pytest.fixture
def key(tmp_path):
    path = tmp_path / "w.key.pem"
    write_private_key(path, PrivateKey.generate())
    return path


def options(tmp_path, key, log):
    return (
        *("--key", key, "--name", "w.test", "--log", log.key.key),
        *("--state", tmp_path / "state.json"),
    )


def test_key_of_a_log(key):
    code, found = run_command("log", "key", key, "--name", "log.test/x")
    public = PrivateKey.from_pem(key.read_bytes()).public
    assert (code, found["vkey"]) == (
        0,
        str(NoteKey.of("log.test/x", KeyKind.LOG, public)),
    )


def test_key_of_a_witness_from_its_public_half(tmp_path, key):
    public = PrivateKey.from_pem(key.read_bytes()).public
    (tmp_path / "w.pub.pem").write_bytes(public.pem)
    code, found = run_command(
        "log", "key", tmp_path / "w.pub.pem", "--name", "w", "--witness"
    )
    assert code == 0
    assert NoteKey.parse(found["vkey"]) == NoteKey.of("w", KeyKind.WITNESS, public)


@pytest.mark.parametrize(
    ("alg", "name"), [(Algorithm.ES256, "log"), (Algorithm.EDDSA, "a b")]
)
def test_key_that_no_note_can_have(tmp_path, alg, name):
    path = tmp_path / "k.pem"
    write_private_key(path, PrivateKey.generate(alg))
    assert run_command("log", "key", path, "--name", name)[0] == 4


def test_witness_cosigns_a_copy(tmp_path, key, log):
    copy = tmp_path / "copy"
    (copy / "tile" / "0" / "000.p").mkdir(parents=True)
    (copy / "checkpoint").write_text(log.checkpoint())
    arguments = ("log", "witness", copy, *options(tmp_path, key, log))
    assert run_command(*arguments)[0] == 4  # a witness without a memory is none
    code, found = run_command(*arguments, "--new-state")
    assert code == 0
    head, note = parse_checkpoint(log.checkpoint())
    public = PrivateKey.from_pem(key.read_bytes()).public
    witness = NoteKey.of("w.test", KeyKind.WITNESS, public)
    lines = parse_signatures(found["cosignature"] + "\n")
    assert len(cosignatures(Note(note.text, lines), [witness])) == 1
    assert run_command(*arguments, "--new-state")[0] == 4
    state = json.loads((tmp_path / "state.json").read_text())
    assert state == {"witness": str(witness), "logs": {"log.test": str(head)}}


def test_witness_of_another_log(tmp_path, key, log):
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "checkpoint").write_text(log.checkpoint())
    other = SignedLog("other.test")
    arguments = ("log", "witness", copy, *options(tmp_path, key, other))
    code, found = run_command(*arguments, "--new-state")
    assert (code, "--log" in found["error"]["hint"]) == (4, True)


def test_state_of_another_witness(tmp_path, key, log):
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "checkpoint").write_text(log.checkpoint())
    arguments = ["log", "witness", copy, *options(tmp_path, key, log)]
    run_command(*arguments, "--new-state")
    arguments[arguments.index("w.test")] = "v.test"
    code, found = run_command(*arguments)
    assert (code, "not of this witness" in found["error"]["message"]) == (4, True)


def test_state_that_another_process_holds(tmp_path, key, log):
    copy = tmp_path / "copy"
    copy.mkdir()
    with state_lock(tmp_path / "state.json"):
        code, found = run_command(
            "log", "witness", copy, *options(tmp_path, key, log), "--new-state"
        )
    assert (code, "another process" in found["error"]["hint"]) == (4, True)


@pytest.mark.parametrize("more", [(), ("URL", "--listen", "127.0.0.1:0")])
def test_witness_needs_one_place(tmp_path, key, log, more):
    arguments = (*more, *options(tmp_path, key, log))
    assert run_command("log", "witness", *arguments)[0] == 2


def post(url, body):
    request = urllib.request.Request(url, data=body)
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def status_of_length(url, length):
    """Answer to a request that only says how long its body is."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"))
    connection.putrequest("POST", "/add-checkpoint")
    connection.putheader("content-length", length)
    connection.endheaders()
    with connection.getresponse() as answer:
        status = answer.status
    connection.close()
    return status


def test_witness_serves_add_checkpoint(tmp_path, key, log):
    listen = ("--listen", "127.0.0.1:0", "--new-state")
    command = ("log", "witness", *options(tmp_path, key, log), *listen)
    process = subprocess.Popen(
        [sys.executable, "-m", "attest.cli.main", *map(str, command)],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        words = process.stderr.readline()
        url = "http://" + words.split()[-1]
        _, note = parse_checkpoint(log.checkpoint())
        body = format_submission(0, [], note)
        assert post(f"{url}/add-checkpoint", body)[0] == 200
        assert post(f"{url}/add-checkpoint", body) == (409, b"1\n")
        assert post(f"{url}/add-checkpoint", b"nonsense")[0] == 400
        assert post(f"{url}/other", body)[0] == 404
        assert status_of_length(url, "1000000") == 413
        assert status_of_length(url, "-1") == 411
    finally:
        process.terminate()
        process.wait()
        process.stderr.close()


def test_place_that_is_none(tmp_path):
    authority = tmp_path / "a.pub.pem"
    authority.write_bytes(PrivateKey.generate().public.pem)
    code, found = run_command("log", "verify", "ftp://x", "--authority", authority)
    assert (code, "neither" in found["error"]["message"]) == (4, True)


def test_witness_key_is_no_log_key(tmp_path):
    authority = tmp_path / "a.pub.pem"
    authority.write_bytes(PrivateKey.generate().public.pem)
    signer = NoteSigner("w", KeyKind.WITNESS, PrivateKey.generate())
    code, found = run_command(
        *("log", "verify", tmp_path, "--authority", authority, "--log", signer.key)
    )
    assert (code, "not the key of a log" in found["error"]["message"]) == (4, True)
