import errno
import io
import os
import shutil
import struct
import subprocess

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from attest import dmverity
from attest.dmverity import (
    SignedVolume,
    VerityTable,
    device_table,
    listed_volume,
    parse_reply,
    parse_table,
    volume_root_hash,
    volume_statement,
)
from attest.errors import EvidenceUnavailableError, FormatError

VERITYSETUP = shutil.which("veritysetup", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
ROOT = "8d9f941658b5602a60f62a9a90ebaef51f18a3efc69c727c2ba47f9daa2d2a51"
LINE = f"1 7:1 7:2 4096 4096 245 1 sha256 {ROOT} aabb"
TABLE = VerityTable(f"sha256:{ROOT}", "aabb", 245)
DEVICE = os.makedev(254, 3)


def content(blocks):
    return b"".join(bytes([n % 251, n // 251]) * 2048 for n in range(blocks))


# The root hash.


@pytest.mark.parametrize(
    ("blocks", "salt", "root"),
    # As printed by: veritysetup format --salt=SALT (cryptsetup 2.6.1), of content().
    [
        (1, "", "ad7facb2586fc6e966c004d7d1d16b024f5805ff7cb47c7a85dabd8b48892ca7"),
        (1, "aabb", "00dc65f66df679fa3382cb3fa45c434899d3f7c5f3d278c7d11a6d35310d4d75"),
        (2, "", "6ae237e20b9fbcf5aa1235b39ed189591ac0700adb57af7aa66373d56817311f"),
        (
            128,
            "aabb",
            "1d9667cb63dae7b4a36af5a365aabd8ffdfe6bf87d550d8f62bac0a753a6b746",
        ),
        (
            129,
            "00" * 32,
            "719e5e4a8606da4cd60f21527e2d1ba253869f67304ab2d0d0b953d3a9883862",
        ),
        (
            300,
            "ff" * 256,
            "b7e21eae3f4d68c84c4eccc4c4c5f06a03c27496a38e62fc95430a9f4bce70ab",
        ),
    ],
)
def test_root_hash_is_that_of_the_tool(blocks, salt, root):
    found = volume_root_hash(io.BytesIO(content(blocks)), salt=bytes.fromhex(salt))
    assert found == f"sha256:{root}"


@pytest.mark.skipif(VERITYSETUP is None, reason="Debian's cryptsetup-bin is missing")
@settings(max_examples=10, deadline=None)
@given(blocks=st.integers(1, 300), salt=st.binary(max_size=256))
def test_root_hash_is_that_of_the_installed_tool(tmp_path_factory, blocks, salt):
    folder = tmp_path_factory.mktemp("verity")
    (folder / "data").write_bytes(content(blocks))
    command = [VERITYSETUP, "format", folder / "data", folder / "tree"]
    command += [f"--salt={salt.hex() or '-'}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    [root] = [li.split()[-1] for li in done.stdout.splitlines() if "Root hash" in li]
    found = volume_root_hash(io.BytesIO(content(blocks)), salt=salt)
    assert found == f"sha256:{root}"


@given(st.integers(1, 130), st.data())
def test_each_bit_counts(blocks, draw):
    data = content(blocks)
    changed = bytearray(data)
    changed[draw.draw(st.integers(0, len(data) - 1))] ^= 1
    assert volume_root_hash(io.BytesIO(data)) != volume_root_hash(io.BytesIO(changed))


@pytest.mark.parametrize("data", [b"", b"x", bytes(4097)])
def test_volume_of_no_whole_blocks(data):
    with pytest.raises(ValueError, match=r"whole blocks|empty"):
        volume_root_hash(io.BytesIO(data))


def test_salt_that_is_too_long():
    with pytest.raises(ValueError, match="256 bytes"):
        volume_root_hash(io.BytesIO(bytes(4096)), salt=bytes(257))


# The table.


def test_table():
    assert parse_table(LINE) == TABLE
    assert parse_table(LINE + " ") == TABLE
    assert parse_table(LINE.replace("aabb", "-")).salt == ""


FEC = "use_fec_from_device 7:3 fec_blocks 245 fec_start 0 fec_roots 2"


@pytest.mark.parametrize(
    "options",
    [
        "0",
        "1 restart_on_corruption",
        "2 panic_on_corruption ignore_zero_blocks",
        f"8 {FEC}",
        "2 root_hash_sig_key_desc key:1",
    ],
)
def test_options_that_let_nothing_through(options):
    assert parse_table(f"{LINE} {options}") == TABLE


@pytest.mark.parametrize(
    "options",
    [
        "1 ignore_corruption",
        "1 check_at_most_once",
        f"9 {FEC} ignore_corruption",
        "2 restart_on_corruption ignore_corruption",
    ],
)
def test_options_that_let_wrong_blocks_through(options):
    with pytest.raises(FormatError, match="lets wrong blocks through"):
        parse_table(f"{LINE} {options}")


@pytest.mark.parametrize(
    "options",
    ["1", "2 ignore_zero_blocks", "x", "01 ignore_zero_blocks", "1 new", "1 fec_roots"],
)
def test_options_in_another_form(options):
    with pytest.raises(FormatError):
        parse_table(f"{LINE} {options}")


def test_hidden_weakening_is_not_taken_for_a_value():
    with pytest.raises(FormatError):
        parse_table(f"{LINE} 1 fec_roots ignore_corruption")


@pytest.mark.parametrize(
    ("at", "word"),
    [
        (0, "0"),
        (1, "/dev/sda"),
        (2, "7"),
        (3, "512"),
        (4, "1024"),
        (5, "0"),
        (5, "-1"),
        (5, "245x"),
        (6, "+1"),
        (7, "sha1"),
        (7, "sha256-generic"),
        (8, ROOT.upper()),
        (8, ROOT[:-2]),
        (9, "abc"),
        (9, "AA"),
        (9, "00" * 257),
        (9, ""),
    ],
)
def test_word_that_is_refused(at, word):
    words = LINE.split(" ")
    words[at] = word
    with pytest.raises(FormatError):
        parse_table(" ".join(words))


@given(st.text())
def test_any_text_is_a_table_or_a_format_error(text):
    try:
        parse_table(text)
    except FormatError:
        return
    raise AssertionError(text)


@given(
    root=st.binary(min_size=32, max_size=32),
    salt=st.binary(max_size=256),
    blocks=st.integers(1, 10**18),
)
def test_every_table_is_read_back(root, salt, blocks):
    line = f"1 8:1 8:2 4096 4096 {blocks} 1 sha256 {root.hex()} {salt.hex() or '-'}"
    assert parse_table(line) == VerityTable(f"sha256:{root.hex()}", salt.hex(), blocks)


@given(st.integers(LINE.index(ROOT), len(LINE) - 1), st.characters(max_codepoint=255))
def test_changed_root_or_salt_is_never_the_same_table(at, character):
    changed = LINE[:at] + character + LINE[at + 1 :]
    assume(changed != LINE)
    try:
        assert parse_table(changed) != TABLE
    except FormatError:
        return


# The kernel's reply, in the layout of linux/dm-ioctl.h.


def reply(
    line=LINE,
    *,
    version=4,
    size=None,
    start=312,
    count=1,
    flags=0b110001,
    device=DEVICE,
    sector=0,
    length=245 * 8,
    kind=b"verity",
    end=b"\0",
):
    text = line.encode("latin-1") + end
    size = 312 + 40 + len(text) if size is None else size
    header = struct.pack("=3I", version, 47, 0)
    header += struct.pack("=IIIiIII", size, start, count, 1, flags, 0, 0)
    header += struct.pack("=Q128s129s7x", device, b"model", b"CRYPT-VERITY-00-model")
    target = struct.pack("=QQiI16s", sector, length, 0, 40 + len(text), kind)
    return (header + target + text).ljust(16384, b"\0")


def test_reply():
    assert parse_reply(reply(), DEVICE) == TABLE


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 3},
        {"device": DEVICE + 1},
        {"flags": 0b110001 | 1 << 8},
        {"flags": 0b110000},
        {"flags": 0b010001},
        {"count": 0},
        {"count": 2},
        {"start": 0},
        {"start": 2**32 - 1},
        {"size": 0},
        {"size": 16385},
        {"size": 400},
        {"kind": b"linear"},
        {"kind": b"verity2"},
        {"sector": 8},
        {"length": 245 * 8 + 8},
        {"line": LINE.replace("7:1", "7:\xb9")},
        {"line": LINE + " 1 ignore_corruption"},
    ],
    ids=str,
)
def test_reply_that_is_refused(changes):
    with pytest.raises(FormatError):
        parse_reply(reply(**changes), DEVICE)


@given(st.binary(max_size=600))
def test_any_bytes_are_a_format_error(data):
    with pytest.raises(FormatError):
        parse_reply(data, DEVICE)


@given(st.integers(0, 500), st.integers(0, 255))
def test_changed_reply_is_read_strictly(at, value):
    data = bytearray(reply())
    data[at] = value
    try:
        found = parse_reply(bytes(data), DEVICE)
    except FormatError:
        return
    assert found.data_blocks == TABLE.data_blocks


@pytest.fixture
def kernel(monkeypatch):
    def play(answer):
        def ioctl(buffer):
            assert struct.unpack_from("=3I", buffer) == (4, 0, 0)
            assert struct.unpack_from("=I", buffer, 28) == (1 << 4,)
            assert struct.unpack_from("=Q", buffer, 40) == (DEVICE,)
            if isinstance(answer, int):
                raise OSError(answer, os.strerror(answer))
            buffer[:] = answer

        monkeypatch.setattr(dmverity, "_ioctl", ioctl)

    return play


def test_device_is_asked(kernel):
    kernel(reply())
    assert device_table(DEVICE) == TABLE


@pytest.mark.parametrize("error", [errno.EACCES, errno.EPERM, errno.ENOENT, errno.EIO])
def test_kernel_that_does_not_say_is_no_answer(kernel, error):
    kernel(error)
    with pytest.raises(EvidenceUnavailableError, match="dm-verity"):
        device_table(DEVICE)


def test_this_kernel(tmp_path):
    """An ordinary folder is on no such device, or this process may not ask."""
    with pytest.raises((EvidenceUnavailableError, FormatError)):
        device_table(tmp_path.stat().st_dev)


# In a manifest.


def test_stated():
    stated = volume_statement(ROOT)
    assert listed_volume({"weights": {"dmVerity": stated}}) == SignedVolume(
        f"sha256:{ROOT}"
    )
    salted = {**stated, "salt": "aabb"}
    assert listed_volume({"weights": {"dmVerity": salted}}).salt == "aabb"
    assert listed_volume({"weights": {"dmVerity": {**stated, "salt": "-"}}}).salt == ""
    assert listed_volume({"weights": {}}) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"rootHash": ROOT.upper()},
        {"rootHash": None},
        {"algorithm": "sha512"},
        {"salt": "A"},
        {"salt": 1},
        {"blocks": 1},
    ],
    ids=str,
)
def test_stated_in_another_form(changes):
    with pytest.raises(FormatError, match=r"dmVerity|64 lower-case"):
        listed_volume({"weights": {"dmVerity": {**volume_statement(ROOT), **changes}}})


@pytest.mark.parametrize("value", [[], "x", 1, False, {}])
def test_stated_as_something_else(value):
    with pytest.raises(FormatError, match="dmVerity"):
        listed_volume({"weights": {"dmVerity": value}})


def test_root_hash_that_is_none_is_not_signed():
    with pytest.raises(FormatError):
        volume_statement(ROOT[:-1])


def test_table_is_the_signed_volume_or_not():
    assert TABLE.is_volume(SignedVolume(f"sha256:{ROOT}"))
    assert TABLE.is_volume(SignedVolume(f"sha256:{ROOT}", "aabb"))
    assert not TABLE.is_volume(SignedVolume(f"sha256:{ROOT}", ""))
    assert not TABLE.is_volume(SignedVolume(f"sha256:{ROOT}", "aabc"))
    assert not TABLE.is_volume(SignedVolume("sha256:" + "0" * 64))
