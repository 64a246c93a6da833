import errno
import io
import json
import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attest import verity
from attest.errors import EvidenceUnavailableError, FormatError
from attest.verity import listed_verity, measure, measure_path, verity_digest

VECTORS = json.loads(
    (Path(__file__).parents[2] / "vectors" / "fsverity" / "digests.json").read_text()
)
FSVERITY = shutil.which("fsverity")


def content(size):
    return (bytes(range(251)) * (size // 251 + 1))[:size]


@pytest.mark.parametrize(
    "case", VECTORS["cases"], ids=lambda c: f"{c['size']}-{c['salt'][:6]}"
)
def test_digest_is_that_of_the_tool(case):
    found = verity_digest(
        io.BytesIO(content(case["size"])), salt=bytes.fromhex(case["salt"])
    )
    assert found == case["digest"]


@pytest.mark.skipif(FSVERITY is None, reason="Debian's fsverity is not installed")
@settings(max_examples=30, deadline=None)
@given(size=st.integers(0, 1_200_000), salt=st.binary(max_size=32))
def test_digest_is_that_of_the_installed_tool(tmp_path_factory, size, salt):
    path = tmp_path_factory.mktemp("verity") / "file"
    path.write_bytes(content(size))
    command = [FSVERITY, "digest", "--compact", "--hash-alg=sha256"]
    command += [f"--salt={salt.hex()}"] if salt else []
    done = subprocess.run([*command, path], capture_output=True, text=True, check=True)
    with path.open("rb") as file:
        found = verity_digest(file, salt=salt)
    assert found.removeprefix("sha256:") == done.stdout.split(":")[-1].split()[0]


@given(st.binary(min_size=1, max_size=9000), st.data())
def test_each_bit_counts(data, draw):
    at = draw.draw(st.integers(0, len(data) - 1))
    changed = bytearray(data)
    changed[at] ^= 1
    assert verity_digest(io.BytesIO(data)) != verity_digest(io.BytesIO(changed))


@given(st.binary(max_size=5000))
def test_zeros_at_the_end_count(data):
    """Blocks are filled up with zeros; only the size in the descriptor tells."""
    assert verity_digest(io.BytesIO(data)) != verity_digest(io.BytesIO(data + b"\0"))


def test_salt_that_is_too_long():
    with pytest.raises(ValueError, match="32 bytes"):
        verity_digest(io.BytesIO(b""), salt=bytes(33))


# Measuring. The answers have the form of linux/fsverity.h: few kernels have fs-verity.


@pytest.fixture
def kernel(monkeypatch):
    """What the kernel answers: bytes to write back, or an errno."""

    def play(answer):
        def ioctl(fd, request, buffer):
            assert request == 0xC0046686
            assert struct.unpack_from("HH", buffer) == (0, 64)
            if isinstance(answer, int):
                raise OSError(answer, os.strerror(answer))
            buffer[: len(answer)] = answer

        monkeypatch.setattr(verity, "_ioctl", ioctl)

    return play


def test_measured(kernel):
    kernel(struct.pack("HH", 1, 32) + bytes(range(32)))
    assert measure(0) == "sha256:" + bytes(range(32)).hex()


@pytest.mark.parametrize("error", [errno.ENODATA, errno.ENOTTY, errno.EOPNOTSUPP])
def test_file_without_it(kernel, error):
    kernel(error)
    assert measure(0) is None


def test_another_algorithm_is_no_measurement(kernel):
    kernel(struct.pack("HH", 2, 64) + bytes(64))
    with pytest.raises(FormatError, match="algorithm 2"):
        measure(0)


@pytest.mark.parametrize("error", [errno.EIO, errno.EOVERFLOW, errno.EBADF])
def test_other_errors_are_no_answer(kernel, error):
    kernel(error)
    with pytest.raises(EvidenceUnavailableError, match="does not measure"):
        measure(0)


def test_path_is_measured_without_following_links(kernel, tmp_path):
    kernel(struct.pack("HH", 1, 32) + bytes(32))
    (tmp_path / "file").write_bytes(b"x")
    assert measure_path(tmp_path / "file") == "sha256:" + "00" * 32
    (tmp_path / "link").symlink_to("file")
    with pytest.raises(EvidenceUnavailableError, match="link"):
        measure_path(tmp_path / "link")


def test_this_kernel(tmp_path):
    """The true ioctl on an ordinary file: understood or not, it is no measurement."""
    with (tmp_path / "file").open("wb") as file:
        assert measure(file.fileno()) is None


# In a manifest.


def test_listed():
    one = "sha256:" + "0" * 64
    assert listed_verity({"weights": {"fsVerity": {"a": one}}}) == {"a": one}
    assert listed_verity({"weights": {}}) == {}


@pytest.mark.parametrize("value", [[], "x", {"a": 1}, {"a": "sha256:1"}, {"a": None}])
def test_listed_in_another_form(value):
    with pytest.raises(FormatError, match="fsVerity"):
        listed_verity({"weights": {"fsVerity": value}})
