"""A log that shows one history to some, and another to others."""

import pytest
from fakes.operated import operated

from attest.keys import PrivateKey
from attest.signers.file import write_private_key


@pytest.fixture
async def gateway(tmp_path):
    async with operated(tmp_path) as gateway:
        await gateway.answer()
        yield gateway


def kinds(found):
    return [finding["kind"] for finding in found["findings"]]


async def test_forked_log_is_found(gateway):
    """The operator takes a record out and signs the shorter history anew."""
    for _ in range(4):
        await gateway.answer()
    await gateway.monitor()
    await gateway.rebuild_without(index=2)
    for _ in range(3):
        await gateway.answer()
    code, found = await gateway.monitor()
    assert code == 1
    assert "forked" in kinds(found)
    assert found["log"]["size"] == 6  # what was seen before stays what is known
    assert (await gateway.monitor())[0] == 1


async def test_shrunken_log_is_found(gateway):
    for _ in range(4):
        await gateway.answer()
    await gateway.monitor()
    await gateway.rebuild_without(index=2)
    code, found = await gateway.monitor()
    assert (code, kinds(found)) == (1, ["shrunk"])


async def test_other_monitors_state_shows_the_fork_too(gateway, tmp_path):
    """A fork that was made before the first look shows in the sequence."""
    for _ in range(4):
        await gateway.answer()
    await gateway.rebuild_without(index=2)
    code, found = await gateway.monitor()
    assert code == 1
    assert "record_missing" in kinds(found)


async def test_witness_leaves_a_forked_log_alone(gateway, tmp_path):
    """Whoever asks for tier T2 never sees the second tree proven."""
    witness = tmp_path / "witness.json"
    write_private_key(tmp_path / "w.key.pem", PrivateKey.generate())
    cosign = (
        *("log", "witness", gateway.url, "--state", witness, "--name", "w.test"),
        *("--key", tmp_path / "w.key.pem", "--log", gateway.log.key.key),
    )
    for _ in range(4):
        await gateway.answer()
    assert (await gateway.command(*cosign, "--new-state"))[0] == 0
    await gateway.rebuild_without(index=2)
    code, found = await gateway.command(*cosign)
    assert code == 1
    assert "5 entries, where 6 were cosigned" in found["error"]["message"]
    for _ in range(3):
        await gateway.answer()
    code, found = await gateway.command(*cosign)
    assert code == 1
    assert "consistency" in found["error"]["message"]
