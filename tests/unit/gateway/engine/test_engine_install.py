import importlib.metadata
import json
import os
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from attest.errors import ConfigurationError
from gateway.cli import app
from gateway.engine.install import engine_settings, install_plugin

PROJECT = tomllib.loads((Path(__file__).parents[4] / "pyproject.toml").read_text())


def test_python_finds_it_on_a_path_alone(tmp_path):
    install_plugin(tmp_path / "plugin")
    code = (
        "import importlib.metadata as m, json; print(json.dumps({g: sorted((e.name,"
        " e.value) for e in m.entry_points(group=g)) for g in"
        " ('vllm.general_plugins', 'vllm.endpoint_plugins')}))"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        env={"PYTHONPATH": str(tmp_path / "plugin")},
        capture_output=True,
        check=True,
    )
    declared = PROJECT["project"]["entry-points"]
    assert json.loads(done.stdout) == {
        group: [list(item) for item in points.items()]
        for group, points in declared.items()
        if group.startswith("vllm.")
    }


def test_record_lists_every_file(tmp_path):
    install_plugin(tmp_path)
    [dist] = importlib.metadata.distributions(path=[str(tmp_path)])
    listed = {str(file) for file in dist.files}
    found = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    assert listed == found
    assert dist.requires is None


def test_everybody_may_read_it(tmp_path):
    mask = os.umask(0o077)
    try:
        install_plugin(tmp_path / "a" / "plugin")
    finally:
        os.umask(mask)
    for path in (tmp_path / "a" / "plugin").rglob("*"):
        assert path.stat().st_mode & 0o005 == (0o005 if path.is_dir() else 0o004)


def test_second_time_leaves_nothing_of_the_first(tmp_path):
    install_plugin(tmp_path)
    (tmp_path / "gateway" / "engine" / "vllm_plugin" / "old.py").write_text("")
    (tmp_path / "attest_gateway-0.0.1.dist-info").mkdir()
    install_plugin(tmp_path)
    assert not list(tmp_path.rglob("old.py"))
    assert len(list(tmp_path.glob("*.dist-info"))) == 1


def test_folder_with_other_code_is_refused(tmp_path):
    (tmp_path / "sitecustomize.py").write_text("")
    with pytest.raises(ConfigurationError, match=r"sitecustomize\.py"):
        install_plugin(tmp_path)


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match=r"plugin: .*file"):
        install_plugin(tmp_path / "file" / "x")


def test_command_shows_environment_and_flags(tmp_path):
    done = CliRunner().invoke(app, ["plugin", "install", str(tmp_path / "p")])
    *environment, flags = done.output.splitlines()
    wanted, options = engine_settings(
        tmp_path / "p", reference="/run/attest/reference.json"
    )
    assert environment == [f"{name}={value}" for name, value in wanted.items()]
    assert shlex.split(flags) == options
    assert done.exit_code == 0


def test_report_is_asked_for_by_name(tmp_path):
    _, flags = engine_settings(tmp_path, reference="/r.json", report="/l.json")
    [extra] = [f for f in flags if "extra-config" in f]
    assert json.loads(extra.partition("=")[2]) == {
        "reference": "/r.json",
        "report": "/l.json",
    }
