"""The bounded log and the phases in it."""

from gateway.engine.log import EngineLog


def feed(tmp_path, *chunks):
    phases = []
    log = EngineLog(tmp_path / "engine.log", phases.append)
    for chunk in chunks:
        log.feed(chunk)
    log.close()
    return log, phases


def test_phases(tmp_path):
    bar = b"\rLoading safetensors checkpoint shards: %3d%% Completed | 1/2\n"
    _, phases = feed(
        tmp_path,
        b"INFO Starting to load mod",
        b"el m...\n",
        bar % 50,
        bar % 50,
        bar % 100,
        b"INFO Loading weights took 1 second\n",
        b"INFO something else\n",
    )
    assert phases == [
        "loading weights",
        "loading weights, 50%",
        "loading weights, 100%",
        "warming up",
    ]


def test_tail(tmp_path):
    log, _ = feed(tmp_path, b"".join(b"%d\n\n" % n for n in range(30)), b"\xff\n")
    assert list(log.tail) == [*map(str, range(11, 30)), "\ufffd"]


def test_long_lines_are_cut(tmp_path):
    log, _ = feed(tmp_path, b"x" * 10_000, b"\n")
    assert [len(line) for line in log.tail] == [400]


def test_file_is_private_and_bounded(tmp_path):
    path = tmp_path / "engine.log"
    path.write_text("of the last start")
    feed(tmp_path, *[b"x" * (1 << 20)] * 12)
    assert path.stat().st_mode & 0o777 == 0o600
    assert {p.name for p in tmp_path.iterdir()} == {"engine.log", "engine.log.1"}
    assert sum(p.stat().st_size for p in tmp_path.iterdir()) <= 11 << 20
