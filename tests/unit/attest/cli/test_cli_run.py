"""What holds for every command: forms of output, exit codes, errors, start-up."""

import contextlib
import io
import json
import os
import pty
import subprocess
import sys
from types import SimpleNamespace

import pytest
import typer

from attest import errors
from attest.cli._progress import hashing_progress
from attest.cli.exits import ExitCode, exit_code
from attest.cli.main import NOUNS
from attest.keys import PrivateKey

# typer itself brings pydantic along.
HEAVY = {"fastapi", "httpx", "httpx2", "rich", "starlette", "torch", "transformers"}


def command(*arguments):
    return [sys.executable, "-m", "attest.cli.main", *map(str, arguments)]


def process(*arguments, **streams):
    """The command in a process of its own."""
    if "stdout" not in streams:
        streams["capture_output"] = True
    return subprocess.run(command(*arguments), check=False, timeout=60, **streams)


def on_a_terminal(*arguments, **env):
    """What the command writes where stdout and stderr are a terminal."""
    parent, child = pty.openpty()
    streams = {"stdout": child, "stderr": child}
    env = {**os.environ, "TERM": "xterm", **env}
    with subprocess.Popen(command(*arguments), env=env, **streams):
        os.close(child)
        written = b""
        with contextlib.suppress(OSError):  # EIO is the end
            while True:
                written += os.read(parent, 4096)
    os.close(parent)
    return written


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.VerificationError, 1),
        (errors.SignatureError, 1),
        (errors.AlgorithmError, 1),
        (errors.ExpiredError, 1),
        (errors.ManifestMismatchError, 1),
        (errors.TranscriptMismatchError, 1),
        (errors.PolicyError, 1),
        (errors.ContentOnlyError, 6),
        (errors.FormatError, 1),
        (errors.EvidenceUnavailableError, 3),
        (errors.UnsupportedVersionError, 3),
        (errors.ConfigurationError, 4),
        (errors.SignerError, 4),
        (errors.TrainingError, 4),
        (errors.AttestError, 5),
        (RuntimeError, 5),
        (MemoryError, 5),
        (KeyboardInterrupt, 130),
    ],
)
def test_every_error_has_one_code(kind, code):
    assert exit_code(kind("words")) == code


def test_every_listed_error_has_a_code_of_its_own_kind():
    for name in errors.__all__:
        kind = getattr(errors, name)
        if kind not in (errors.AttestError, errors.InputError):
            assert exit_code(kind("words")) in (1, 3, 4, 6), name


@pytest.fixture
def broken(attest, monkeypatch, tmp_path):
    """A command whose inside raises."""

    def run(error, *arguments, **options):
        def generate(_):
            raise error

        monkeypatch.setattr(PrivateKey, "generate", staticmethod(generate))
        path = tmp_path / "a.pem"
        return attest("keys", "new", path, *arguments, **options)

    return run


def test_error_is_two_lines_with_a_hint(broken):
    result = broken(errors.SignerError("the store is locked", hint="unlock it"))
    assert result.exit_code == ExitCode.CONFIGURATION
    assert result.stderr == "error: the store is locked\n hint: unlock it\n"
    assert result.stdout == ""


def test_error_in_json_stands_alone_on_stdout(broken):
    error = errors.SignerError("the store is locked", hint="unlock it")
    result = broken(error, "--format", "json")
    assert json.loads(result.stdout) == {
        "error": {
            "code": "signer",
            "message": "the store is locked",
            "hint": "unlock it",
        }
    }


def test_error_is_printed_even_when_quiet(broken):
    result = broken(errors.SignerError("the store is locked"), "--quiet")
    assert result.stderr == "error: the store is locked\n"


def test_error_cannot_drive_the_terminal(broken):
    result = broken(errors.SignerError("a\x1b[2J\nb", hint="\r\x9b"))
    assert result.stderr == "error: a\\x1b[2J\\nb\n hint: \\r\\x9b\n"


def test_fault_of_the_program_shows_no_insides(broken):
    result = broken(RuntimeError("the secret"))
    assert result.exit_code == ExitCode.INTERNAL
    assert result.stderr.splitlines()[0] == "error: internal: RuntimeError"
    assert "secret" not in result.output
    assert "Traceback" not in result.output


def test_debug_shows_where_a_fault_is(broken, monkeypatch):
    monkeypatch.setenv("ATTEST_DEBUG", "1")
    assert "Traceback" not in broken(errors.SignerError("no")).stderr
    monkeypatch.setenv("ATTEST_DEBUG", "1")
    assert "Traceback" in broken(RuntimeError("boom")).stderr


def test_interrupt(broken):
    assert broken(KeyboardInterrupt()).exit_code == ExitCode.INTERRUPTED


@pytest.mark.parametrize(
    "arguments",
    [["nonsense"], ["keys", "nonsense"], ["keys", "new"], ["verify"], ["--nonsense"]],
)
def test_usage(attest, arguments):
    result = attest(*arguments)
    assert result.exit_code == ExitCode.USAGE
    assert "Usage: attest" in process(*arguments).stderr.decode()


def test_help_names_every_noun_that_is_there(attest):
    text = attest("--help").stdout
    for noun in ("explain", "keys", "manifest", "verify", "weights"):
        assert noun in text
    assert NOUNS["verify"][1] in text


def test_noun_that_is_not_installed_is_unknown(attest, monkeypatch):
    gone = {**NOUNS, "keys": ("attest.cli.gone", "Gone.")}
    monkeypatch.setattr("attest.cli.main.NOUNS", gone)
    assert attest("keys").exit_code == ExitCode.USAGE
    assert "keys" not in attest("--help").stdout


def test_answers_of_plain_typer_commands_pass_through(attest, monkeypatch, tmp_path):
    module = typer.Typer()

    @module.command()
    def plain() -> None:
        raise typer.Exit(7)

    monkeypatch.setattr("attest.cli.keys.app", module)
    assert attest("keys").exit_code == 7


def test_version(attest):
    result = attest("--version")
    assert result.exit_code == 0
    assert result.stdout.startswith("attest-gateway ")


def test_exit_status_of_the_process(evidence, tmp_path):
    bundle, authority = evidence / "bundle.json", evidence / "authority.pub.pem"
    other = evidence / "other.pub.pem"
    assert process("verify", "bundle", bundle, "--authority", authority).returncode == 0
    assert process("verify", "bundle", bundle, "--authority", other).returncode == 1
    assert process("verify", "bundle", bundle).returncode == 2
    assert process("verify", "bundle", bundle, "--authority", "no").returncode == 4


def test_stdin_of_the_process(evidence):
    arguments = ["verify", "bundle", "-", "--authority", evidence / "authority.pub.pem"]
    data = (evidence / "bundle.json").read_bytes()
    assert process(*arguments, input=data).returncode == 0


def test_closed_pipe_is_no_traceback(evidence):
    read, write = os.pipe()
    os.close(read)
    result = process(
        *("explain", evidence / "bundle.json"),
        stdout=write,
        stderr=subprocess.PIPE,
    )
    os.close(write)
    assert result.returncode == ExitCode.INTERNAL
    assert result.stderr == b""


def test_full_disk_is_an_error(evidence):
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        result = process(
            *("explain", evidence / "bundle.json"),
            stdout=full,
            stderr=subprocess.PIPE,
        )
    assert result.returncode == ExitCode.INTERNAL
    assert b"error: internal: OSError" in result.stderr


def test_colours_are_for_terminals_without_no_color(evidence):
    arguments = ["verify", "bundle", evidence / "bundle.json"]
    arguments += ["--authority", evidence / "authority.pub.pem"]
    assert b"\x1b[32m" in on_a_terminal(*arguments)
    assert b"\x1b" not in on_a_terminal(*arguments, NO_COLOR="1")
    assert b"\x1b" not in process(*arguments).stdout


def test_progress_counts_bytes(monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr("sys.stderr", terminal)
    with hashing_progress(SimpleNamespace(meta={}), total=2_000_000) as advance:
        advance(1_000_000)
        advance(1_000_000)
    assert "2.0/2.0 MB" in terminal.getvalue()


def test_progress_is_for_terminals(pristine_model):
    arguments = ["weights", "digest", pristine_model]
    assert b"hashing" in on_a_terminal(*arguments)
    assert b"hashing" not in on_a_terminal(*arguments, "--quiet")
    assert process(*arguments).stderr == b""


@pytest.mark.parametrize("words", [["--help"], ["verify", "bundle"], ["manifest"]])
def test_start_up_loads_nothing_heavy(words, evidence):
    arguments = [*words]
    if words[0] == "verify":
        arguments += [str(evidence / "bundle.json")]
        arguments += ["--authority", str(evidence / "authority.pub.pem")]
    code = (
        "import sys; sys.argv = ['attest', *sys.argv[1:]]\n"
        "from attest.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(*sorted(m for m in sys.modules if '.' not in m), file=sys.stderr)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        check=True,
        text=True,
    )
    loaded = set(result.stderr.splitlines()[-1].split())
    assert "typer" in loaded
    assert not loaded & HEAVY
