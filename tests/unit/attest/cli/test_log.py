import asyncio
import http.client
import json
import shutil
import subprocess
import sys
import threading
import urllib.error
import urllib.request

import pytest
from fakes.log import SignedLog
from fakes.operated import operated, run_command
from fakes.world import make_world
from typer.testing import CliRunner

from attest.cli import log as commands
from attest.cli._state import state_lock
from attest.cli._witness import Desk, WitnessServer
from attest.cli.main import app
from attest.keys import Algorithm, PrivateKey
from attest.log.checkpoint import cosignatures, parse_checkpoint
from attest.log.merkle import leaf_hash
from attest.log.note import KeyKind, Note, NoteKey, NoteSigner, parse_signatures
from attest.log.witness import Witness, format_submission
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


# The log of a real gateway, saved once; each test has a copy to spoil.


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("operated")

    async def save():
        async with operated(folder) as gateway:
            kept = await gateway.answer()
            await gateway.answer("Another prompt.")
            code, _ = await gateway.verify("--save", folder / "copy")
            assert code == 0
            (folder / "token").write_text(kept.headers["attestation"])
            return gateway.authority

    return asyncio.run(save()).parent


@pytest.fixture
def copy(saved, tmp_path):
    return shutil.copytree(saved / "copy", tmp_path / "copy")


@pytest.fixture
def words(saved):
    """Exit code, stdout and stderr of a command of `attest log`, for people."""

    def words(verb, place, *more):
        arguments = ("log", verb, place, "--authority", saved / "authority.pub.pem")
        result = CliRunner().invoke(app, [*map(str, (*arguments, *more))])
        return result.exit_code, result.stdout, result.stderr

    return words


def records(copy):
    """Where each record stands: the file's lines, from 0."""
    (path,) = (copy / "records" / "000.p").glob("3")
    return path


def swapped(copy):
    """The same log with two of its records exchanged."""
    path = records(copy)
    first, second, third = path.read_text().splitlines()
    path.write_text(f"{first}\n{third}\n{second}\n")


def test_whole_log_in_words(copy, words):
    code, text, _ = words("verify", copy)
    assert code == 0
    assert "log log.test, 3 entries" in text
    assert "0 of 3 witnesses cosigned its head" in text
    assert "2 records (1 governed, 1 unlisted)" in text
    assert "PROVEN: nothing that was logged is missing" in text
    assert "not proven: that every answer was logged" in text


def test_altered_log_in_words(copy, words):
    swapped(copy)
    code, text, _ = words("verify", copy)
    assert code == 1
    assert "FAILED       record_altered entry 1:" in text
    assert "FALSE: the log or its operator" in text
    assert "PROVEN" not in text


def test_an_attestation_that_must_be_there(copy, words, saved, tmp_path):
    assert words("verify", copy, "--token", saved / "token")[0] == 0
    token = make_world().token()
    (tmp_path / "other").write_text(token)
    code, text, _ = words("verify", copy, "--token", tmp_path / "other")
    assert (code, "FAILED" in text) == (1, True)


def test_monitor_follows_until_a_no(copy, words, tmp_path, monkeypatch):
    """What changed is said as it is seen; the first alarm ends it."""
    pauses = []

    def pause(seconds):
        pauses.append(seconds)
        (copy / "checkpoint").write_text(SignedLog().checkpoint())

    monkeypatch.setattr(commands.time, "sleep", pause)
    state = tmp_path / "state.json"
    code, text, said = words("monitor", copy, "--state", state, "--every", 7)
    assert (code, pauses) == (1, [7.0])
    assert "changed" in said
    assert "system_prompt" in said
    assert "FAILED       shrunk" in text


def test_an_alarm_is_not_forgotten(copy, words, tmp_path):
    state = tmp_path / "state.json"
    good = (copy / "checkpoint").read_bytes()
    assert words("monitor", copy, "--state", state)[0] == 0
    (copy / "checkpoint").write_text(SignedLog().checkpoint())
    assert words("monitor", copy, "--state", state)[0] == 1
    (copy / "checkpoint").write_bytes(good)
    code, text, _ = words("monitor", copy, "--state", state)
    assert code == 1
    assert "FAILED       shrunk" in text
    assert "FALSE" in text


def test_a_first_look_that_fails_remembers_the_alarm_alone(copy, words, tmp_path):
    state = tmp_path / "state.json"
    (copy / "checkpoint").write_text(SignedLog().checkpoint())
    assert words("monitor", copy, "--state", state)[0] == 1
    kept = json.loads(state.read_text())
    assert len(kept["alarms"]) == 1
    assert kept["head"] is None


@pytest.mark.parametrize("content", ["{}", '{"head": 1}', "{", '{"alarms": [1]}'])
def test_state_that_no_monitor_wrote(copy, words, tmp_path, content):
    (tmp_path / "state.json").write_text(content)
    code, _, said = words("monitor", copy, "--state", tmp_path / "state.json")
    assert code == 4
    assert "state" in said


def test_witness_does_not_go_back(tmp_path, key, log):
    """A head that is smaller than the one that it cosigned is no head of this log."""
    copy = tmp_path / "copy"
    (copy / "tile" / "0" / "000.p").mkdir(parents=True)
    (copy / "tile" / "0" / "000.p" / "2").write_bytes(leaf_hash(b"one") * 2)
    arguments = ("log", "witness", copy, *options(tmp_path, key, log))
    small = log.checkpoint()
    log.tree.append(b"two")
    (copy / "checkpoint").write_text(log.checkpoint())
    assert run_command(*arguments, "--new-state")[0] == 0
    (copy / "checkpoint").write_text(small)
    code, found = run_command(*arguments)
    assert code == 1
    assert "1 entries, where 2 were cosigned before" in found["error"]["message"]


@pytest.mark.parametrize(
    "listen", ["127.0.0.1", ":80", "host:", "host:port", "h:99999"]
)
def test_places_where_no_witness_can_listen(tmp_path, key, log, listen):
    command = ("log", "witness", *options(tmp_path, key, log), "--new-state")
    assert run_command(*command, "--listen", listen)[0] in (2, 4)


def test_witness_serves_until_it_is_told_to_stop(tmp_path, key, log, monkeypatch):
    monkeypatch.setattr(WitnessServer, "serve_forever", lambda server: None)
    command = ("log", "witness", *options(tmp_path, key, log), "--new-state")
    assert run_command(*command, "--listen", "127.0.0.1:0") == (0, {})


def test_state_that_cannot_be_written_cosigns_nothing(tmp_path, key, log, monkeypatch):
    """In this process: over HTTP the log is told that the witness cannot decide."""
    signer = NoteSigner("w.test", KeyKind.WITNESS, PrivateKey.generate())
    state = tmp_path / "state.json"
    state.write_text(json.dumps({"witness": str(signer.key), "logs": {}}))
    desk = Desk(Witness(signer, [log.key.key]), state)
    _, note = parse_checkpoint(log.checkpoint())
    state.unlink()
    state.mkdir()
    with WitnessServer(("127.0.0.1", 0), desk) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_port}/add-checkpoint"
            assert post(url, format_submission(0, [], note))[0] == 500
            state.rmdir()
            assert post(url, format_submission(0, [], note))[0] == 200
            assert post(url, b"nonsense")[0] == 400
            base = url.removesuffix("/add-checkpoint")
            assert post(f"{base}/other", b"x")[0] == 404
            assert status_of_length(base, "1000000") == 413
            assert status_of_length(base, "-1") == 411
        finally:
            server.shutdown()
            thread.join()
