import os

import pytest

from attest.files import write_durably


def test_new_content_takes_the_place_of_the_old(tmp_path):
    path = tmp_path / "state.json"
    write_durably(path, b"old")
    write_durably(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_crash_in_between_leaves_the_old(tmp_path, monkeypatch):
    path = tmp_path / "state.json"
    write_durably(path, b"old")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_durably(path, b"new")
    assert path.read_bytes() == b"old"
