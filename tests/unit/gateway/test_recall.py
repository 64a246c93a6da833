import time

import pytest
from fakes.gateway import running_gateway
from fakes.model import sign_directory
from fakes.upstream import json_answer
from fakes.world import ANSWER, NOW, make_world

from attest.bundle import Bundle
from attest.errors import ConfigurationError, VerificationError
from attest.recall import Reference, StatusList
from attest.verify import Status, verify
from gateway.recall import read_status_lists
from gateway.server import serve
from gateway.settings import load_settings

PLACE = Reference("https://authority.test/status", 3)


def write_list(path, key, *, since=None, now=NOW):
    items = StatusList.new(PLACE.uri, 8)
    if since is not None:
        items = items.revoked(PLACE.index, since)
    path.write_text(items.sign(key, now=now) + "\n")


async def test_bundle_holds_the_list_as_it_is_now(tmp_path):
    path = tmp_path / "status"
    world = make_world(predicate={"status": PLACE.to_json()})
    async with running_gateway(tmp_path, world=world, status_lists=(path,)) as gateway:
        gateway.engine.answer(json_answer(ANSWER))
        answer = await gateway.chat()
        where = f"/v1/attestations/{answer.headers['attestation-id']}"

        async def verdict():
            bundle = Bundle.loads((await gateway.client.get(where)).content)
            return verify(bundle, world.policy, at=NOW)

        write_list(path, world.authority)
        found = await verdict()
        assert (found.proven, found.step(9).status) == (True, Status.OK)
        write_list(path, world.authority, since=NOW)
        assert (await verdict()).problem.number == 9


@pytest.fixture
def site(tmp_path):
    now = int(time.time())
    model = sign_directory(tmp_path / "model", now=now, status=PLACE)
    model.write_keys(tmp_path)
    write_list(tmp_path / "status", model.authority, since=now - 5, now=now)
    return tmp_path


def test_revoked_manifest_is_not_served(site):
    settings = load_settings(
        {
            "model": site / "model",
            "authority": [site / "authority.pem"],
            "signer": f"file:{site / 'issuer.pem'}",
            "state_dir": site / "state",
            "port": 0,
            "status_lists": [site / "status"],
        }
    )
    with pytest.raises(VerificationError, match="manifest: revoked"):
        serve(settings)
    assert len(list((site / "state" / "refusals").glob("*.json"))) == 1


def test_missing_file(tmp_path):
    with pytest.raises(ConfigurationError, match="status_lists"):
        read_status_lists([tmp_path / "absent"])


def test_file_that_is_no_list(tmp_path):
    (tmp_path / "big").write_bytes(b"x" * 20_000)
    with pytest.raises(ConfigurationError, match="no status list"):
        read_status_lists([tmp_path / "big"])
