"""An answer that was given, and whose record is missing or hidden."""

import pytest
from fakes.operated import operated


@pytest.fixture
async def gateway(tmp_path):
    async with operated(tmp_path) as gateway:
        await gateway.answer()
        yield gateway


def kinds(found):
    return [finding["kind"] for finding in found["findings"]]


async def test_dropped_record_is_found(gateway):
    await gateway.monitor()
    attester = gateway.gateway.attester
    attester._seq += 1  # signed and delivered, but never stored
    await gateway.answer()
    code, found = await gateway.monitor()
    assert (code, kinds(found)) == (1, ["record_missing"])
    assert "record 1 is missing" in found["findings"][0]["detail"]


async def test_alarm_stays(gateway):
    await gateway.monitor()
    gateway.gateway.attester._seq += 1
    await gateway.answer()
    await gateway.monitor()
    await gateway.answer()
    code, found = await gateway.monitor()
    assert (code, found["findings"]) == (1, [])
    assert [alarm["kind"] for alarm in found["alarms"]] == ["record_missing"]


async def test_record_hidden_from_the_auditor_is_found(gateway):
    await gateway.answer()
    gateway.rewrite("DELETE FROM attestations WHERE seq = 0")
    code, found = await gateway.monitor()
    assert code == 1
    assert "record_missing" in kinds(found)


async def test_verify_finds_the_answer_that_a_client_holds(gateway, tmp_path):
    await gateway.answer()
    response = await gateway.answer()
    token = tmp_path / "token"
    token.write_text(response.headers["attestation"])
    assert (await gateway.verify("--token", token))[0] == 0
    last = response.headers["attestation-id"]
    gateway.rewrite("DELETE FROM attestations WHERE id = ?", last)
    await gateway.rebuild_without(index=3)
    code, found = await gateway.verify("--token", token)
    assert (code, kinds(found)[-1]) == (1, "token_not_in_log")
