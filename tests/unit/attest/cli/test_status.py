import pytest
from fakes.operated import run_command
from fakes.world import make_world

from attest.cli._read import now
from attest.keys import PrivateKey
from attest.recall import Reference
from attest.signers.file import write_private_key

URI = "https://authority.test/status/1"


@pytest.fixture
def world(tmp_path):
    world = make_world(
        now=now() - 60, predicate={"status": Reference(URI, 7).to_json()}
    )
    write_private_key(tmp_path / "authority.key.pem", world.authority)
    (tmp_path / "authority.pub.pem").write_bytes(world.authority.public.pem)
    (tmp_path / "answer.bundle.json").write_bytes(world.bundle().dumps())
    return world


@pytest.fixture
def status(tmp_path, world):
    """Runs a verb of `attest status` on one list."""

    def run(verb, *more):
        key = ("--key", tmp_path / "authority.key.pem")
        return run_command("status", verb, tmp_path / "list", *key, *more)

    return run


def verify(tmp_path):
    return run_command(
        *("verify", "bundle", tmp_path / "answer.bundle.json"),
        *("--authority", tmp_path / "authority.pub.pem"),
        *("--status", tmp_path / "list"),
    )


def test_new_list_revokes_nothing(tmp_path, status):
    code, found = status("issue", "--uri", URI, "--size", 64)
    assert (code, found["size"], found["revoked"]) == (0, 64, {})
    code, verdict = verify(tmp_path)
    assert (code, verdict["steps"][9]["status"]) == (0, "ok")


def test_revoked_from_a_time_before(tmp_path, status):
    status("issue", "--uri", URI)
    code, found = status("revoke", "--index", 7, "--since", "2020-01-01T00:00:00Z")
    assert (code, found["revoked"]) == (0, {"7": 1577836800})
    code, verdict = verify(tmp_path)
    assert (code, verdict["steps"][9]["code"]) == (1, "false")


def test_revoked_now_leaves_older_answers_proven(tmp_path, status):
    status("issue", "--uri", URI)
    status("revoke", "--index", 7)
    code, verdict = verify(tmp_path)
    assert code == 0
    assert "after the token was signed" in verdict["steps"][9]["detail"]


def test_list_is_signed_anew(tmp_path, status):
    status("issue", "--uri", URI)
    status("revoke", "--index", 7)
    first = (tmp_path / "list").read_bytes()
    code, found = status("issue")
    assert (code, list(found["revoked"])) == (0, ["7"])
    assert (tmp_path / "list").read_bytes().strip()
    assert first.strip()
    assert status("issue", "--uri", URI)[0] == 4


def test_show_verifies(tmp_path, status):
    status("issue", "--uri", URI)
    show = ("status", "show", tmp_path / "list", "--authority")
    assert run_command(*show, tmp_path / "authority.pub.pem")[0] == 0
    (tmp_path / "other.pem").write_bytes(PrivateKey.generate().public.pem)
    code, found = run_command(*show, tmp_path / "other.pem")
    assert (code, found["error"]["code"]) == (1, "signature")


def test_other_key_cannot_revoke(tmp_path, status):
    status("issue", "--uri", URI)
    write_private_key(tmp_path / "other.key.pem", PrivateKey.generate())
    before = (tmp_path / "list").read_bytes()
    code, _ = run_command(
        *("status", "revoke", tmp_path / "list", "--index", 7),
        *("--key", tmp_path / "other.key.pem"),
    )
    assert (code, (tmp_path / "list").read_bytes()) == (1, before)


@pytest.mark.parametrize("more", [("--size", 2**21, "--uri", URI)])
def test_list_that_cannot_be(status, more):
    assert status("issue", *more)[0] == 4


def test_new_list_needs_a_name(status):
    assert status("issue")[0] == 2


def test_entry_that_is_not_there(status):
    status("issue", "--uri", URI, "--size", 8)
    assert status("revoke", "--index", 8)[0] == 4


def test_manifest_with_a_place_in_the_list(world):
    assert world.manifest.status == Reference(URI, 7)
