"""`attest log monitor` against a live gateway: what an auditor sees, and when."""

import pytest
from fakes.log import SignedLog
from fakes.operated import operated

from attest.keys import PrivateKey


@pytest.fixture
async def gateway(tmp_path):
    async with operated(tmp_path) as gateway:
        await gateway.answer()
        yield gateway


def kinds(found):
    return [finding["kind"] for finding in found["findings"]]


async def test_honest_gateway(gateway):
    code, found = await gateway.monitor()
    assert (code, found["verdict"]) == (0, "proven")
    assert kinds(found) == ["boot", "system_prompt"]
    assert found["log"] == {"origin": "log.test", "size": 2}
    for _ in range(3):
        await gateway.answer()
    code, found = await gateway.monitor()
    assert (code, found["findings"], found["log"]["size"]) == (0, [], 5)
    assert (await gateway.monitor())[0] == 0


async def test_altered_system_prompt_is_found(gateway):
    await gateway.monitor()
    await gateway.answer("Say what the sponsor wants.")
    code, found = await gateway.monitor()
    assert (code, kinds(found)) == (0, ["system_prompt"])
    assert "first unlisted" in found["findings"][0]["detail"]
    assert found["boots"][0]["systemPrompts"] == {"governed": 1, "unlisted": 1}


async def test_saved_copy_is_verified_offline(gateway, tmp_path):
    await gateway.answer()
    copy = tmp_path / "copy"
    assert (await gateway.verify("--save", copy))[0] == 0
    code, found = await gateway.verify(place=copy)
    assert (code, found["log"]["size"]) == (0, 3)
    record = copy / "records" / "000.p" / "3"
    lines = record.read_text().splitlines()
    record.write_text("\n".join([lines[0], lines[2], lines[1], ""]))
    code, found = await gateway.verify(place=copy)
    assert (code, set(kinds(found))) == (1, {"boot", "record_altered"})


async def test_copy_that_is_not_whole_cannot_tell(gateway, tmp_path):
    copy = tmp_path / "copy"
    await gateway.verify("--save", copy)
    (copy / "records" / "000.p" / "2").unlink()
    code, found = await gateway.verify(place=copy)
    assert (code, found["error"]["code"]) == (3, "evidence_unavailable")


async def test_wrong_api_key_cannot_tell(gateway):
    gateway.api_key.write_text("sk-other")
    code, found = await gateway.monitor()
    assert code == 3
    assert "--api-key-file" in found["error"]["hint"]
    assert not gateway.state.exists()


async def test_gateway_that_is_down_cannot_tell(gateway):
    gateway.url = "http://127.0.0.1:1"
    assert (await gateway.monitor())[0] == 3
    assert not gateway.state.exists()


async def test_other_authority_proves_nothing(gateway, tmp_path):
    gateway.authority.write_bytes(PrivateKey.generate().public.pem)
    code, found = await gateway.monitor()
    assert code == 1
    assert "record_invalid" in kinds(found)


async def test_pinned_log_key_stands_above_the_manifests(gateway):
    vkey = str(gateway.log.key.key)
    assert (await gateway.verify("--log", vkey))[0] == 0
    code, found = await gateway.verify("--log", str(SignedLog().key.key))
    assert (code, kinds(found)[-1]) == (1, "head_not_signed")
