"""kill -9 at any point: no token that left the process is missing from the log."""

import asyncio
import hashlib
import os
import random
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from fakes.log import SignedLog

from attest.log.merkle import leaf_hash, verify_inclusion
from attest.signers.file import write_private_key
from gateway.errors import StartupRefusedError
from gateway.store.sqlite import SqliteStore
from gateway.tlog.publisher import Publisher

HERE = Path(__file__).parents[1]

# Says each id and leaf on stdout once the token may leave, and signs heads in between.
SERVE = """
    import asyncio, sys, uuid
    from pathlib import Path
    from attest.keys import PrivateKey
    from attest.log.note import KeyKind, NoteSigner
    from gateway.store.records import Record
    from gateway.store.sqlite import SqliteStore
    from gateway.tlog.publisher import Publisher

    async def main(folder):
        key = PrivateKey.from_pem((folder / "log.key.pem").read_bytes())
        store = SqliteStore.open(folder / "attestations.sqlite", log=True)
        boot = f"boot_{uuid.uuid4()}"
        publisher = Publisher(store, NoteSigner("log.test", KeyKind.LOG, key), folder)
        await publisher.restore()
        store.add_boot(boot, b"{}", f"{boot}.x.y")

        async def answers(number):
            for count in range(10**9):
                name = f"{boot}_{number}_{count}"
                seq, token = number * 10**6 + count, f"{name}.x.y~"
                await store.put(Record.of(name, boot, seq, token))
                print(name, flush=True)

        async def heads():
            while True:
                await publisher.publish()
                await asyncio.sleep(0.01)

        await asyncio.gather(heads(), *(answers(number) for number in range(8)))

    asyncio.run(main(Path(sys.argv[1])))
"""


@pytest.fixture
def log(tmp_path):
    log = SignedLog()
    write_private_key(tmp_path / "log.key.pem", log.key.signer)
    return log


def run_and_kill(folder, lines):
    """Run until it has said so many lines, then kill -9; all that it said."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SERVE), str(folder)],
        stdout=subprocess.PIPE,
        cwd=HERE.parent,
        env={**os.environ, "PYTHONPATH": str(HERE.parent)},
    )
    said = [process.stdout.readline() for _ in range(lines)]
    process.send_signal(signal.SIGKILL)
    said += process.stdout.read().splitlines(keepends=True)
    process.stdout.close()
    assert process.wait() == -signal.SIGKILL
    return [line.decode().strip() for line in said if line.endswith(b"\n")]


async def check(folder, log, said):
    store = SqliteStore.open(folder / "attestations.sqlite", log=True)
    try:
        publisher = Publisher(store, log.key, folder)
        await publisher.restore()
        await publisher.publish()
        for name in said:
            proof = await store.log_proof(name)
            assert proof is not None, f"{name} left and is not in the log"
        found = proof.verify(leaf_of(said[-1]), logs=[log.key.key], witnesses=[])
        assert found.checkpoint == publisher.head
        verify_inclusion(
            leaf_hash(leaf_of(said[-1])),
            index=proof.index,
            size=publisher.head.size,
            proof=proof.proof,
            root=publisher.head.root,
        )
    finally:
        store.close()


def leaf_of(name):
    return hashlib.sha256(f"{name}.x".encode()).digest()


def test_no_token_that_left_is_missing(tmp_path, log):
    seed = random.randrange(2**32)
    chance, said = random.Random(seed), []
    for _ in range(3):
        said += run_and_kill(tmp_path, chance.randrange(1, 150))
        asyncio.run(check(tmp_path, log, said))
    assert len(said) > 4, f"seed {seed}"


def test_database_that_lost_its_end_refuses_to_start(tmp_path, log):
    said = run_and_kill(tmp_path, 20)
    path = tmp_path / "attestations.sqlite"
    asyncio.run(check(tmp_path, log, said))  # also brings the journal into the file
    backup = path.read_bytes()
    more = run_and_kill(tmp_path, 300)
    asyncio.run(check(tmp_path, log, more))
    for beside in tmp_path.glob("attestations.sqlite*"):
        beside.unlink()
    path.write_bytes(backup)
    with pytest.raises(StartupRefusedError, match="were signed"):
        asyncio.run(check(tmp_path, log, said))
