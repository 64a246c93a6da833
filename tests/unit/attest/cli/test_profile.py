import base64
import json
import subprocess
import sys
from itertools import pairwise

import pytest
from fakes.profiled import measurement, profile

from attest.training.profile.document import write_profile
from attest.training.profile.entry import profile_entry
from attest.training.profile.values import CrossCheck


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    write_profile(folder / "profile.json", measurement())
    return folder


def principle(made=None, **members):
    entry = profile_entry(made or profile())
    routing = {"band": "500-1000", "layers": [2, 3]}
    return {"id": "refuse", "routing": routing, "profile": entry, **members}


@pytest.fixture
def statement(tmp_path):
    """Write a statement of these principles; gives its path."""

    def write(*principles):
        path = tmp_path / "training.json"
        path.write_text(json.dumps({"principles": principles}))
        return path

    return write


@pytest.fixture
def manifest(today, tmp_path):
    """A manifest whose principles are these; nobody signed it."""

    def write(*principles):
        envelope = json.loads(today.envelope)
        payload = json.loads(base64.b64decode(envelope["payload"]))
        payload["predicate"]["principles"] = principles
        envelope["payload"] = base64.b64encode(json.dumps(payload).encode()).decode()
        path = tmp_path / "training-manifest.json"
        path.write_text(json.dumps(envelope))
        return path

    return write


def test_a_run_is_drawn(attest, run):
    result = attest("profile", "show", run)
    assert result.exit_code == 0, result.stderr
    head, first, band, *_ = result.stdout.splitlines()
    assert head.split()[:3] == ["L00", "L01", "H/log"]
    assert first.startswith("a ")
    assert "█ 87" in first
    # The mark stands under the second layer.
    assert band.index("━") == first.index("█")
    assert "0.20 away" not in result.stdout
    assert "standard error over chunks" in result.stdout
    assert "NOT VERIFIED" not in result.stdout
    *_, sources, by_a, _, _ = result.stdout.splitlines()
    assert sources.split()[-2:] == ["a", "b"]
    assert by_a.split() == ["a", "+2.83", "+0.49"]


def test_json_is_what_a_statement_holds(attest, run):
    result = attest("profile", "show", run / "profile.json", "--format", "json")
    (source,) = json.loads(result.stdout)["sources"]
    assert source["kind"] == "profile"
    assert [p["id"] for p in source["principles"]] == ["a", "b"]
    expected = profile_entry(measurement().profile("a"))
    assert source["principles"][0]["profile"] == expected


def test_several_seeds_are_a_mean_and_a_deviation(attest, run, tmp_path):
    other = measurement()
    shifted = other.allocations["a"]
    amounts = {**shifted.amounts, "a": ((0, 2_400_000_000, 0), (0, 2_900_000_000, 0))}
    changed = type(shifted)(
        **{f: getattr(shifted, f) for f in shifted.__slots__} | {"amounts": amounts}
    )
    path = tmp_path / "other.json"
    write_profile(
        path,
        measurement(allocations={"a": changed}, curve={}, events=(), exchanges={}),
    )
    result = attest("profile", "show", run, path)
    assert result.exit_code == 0, result.stderr
    assert "standard deviation over 2 runs" in result.stdout
    assert "±" in result.stdout


def test_runs_of_another_model_have_no_mean(attest, run, statement):
    entry = principle(profile(principle="a"), id="a")
    result = attest("profile", "show", run, statement(entry))
    assert result.exit_code == 1
    assert "expected 2 layers" in result.stderr


def test_a_statement_is_drawn(attest, statement):
    made = profile(check=CrossCheck((1_000_000, 0, 0, 0)))
    result = attest("profile", "show", statement(principle(made)).parent)
    assert result.exit_code == 0, result.stderr
    assert "refuse: valid, but the cross-check is 0.90 away" in result.stdout


def test_what_did_not_add_up_says_so(attest, statement):
    result = attest("profile", "show", statement(principle(profile(drop=2_000_000))))
    assert result.exit_code == 0
    assert "refuse: not valid: 52% of the drop is unaccounted for" in result.stdout


def test_what_lies_outside_the_layers_is_told(attest, statement):
    made = profile(
        units=("L00", "L01", "L02", "L03", "head"),
        allocated=(0, 0, 300_000, 300_000, 400_000),
        drop=1_000_000,
        by_source={"refuse": 1_000_000},
    )
    result = attest("profile", "show", statement(principle(made)))
    assert "head took up 40% beside the layers" in result.stdout


def test_a_manifest_is_drawn_and_not_verified(attest, manifest):
    path = manifest(principle(), {"id": "keep"})
    result = attest("profile", "show", path)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("NOT VERIFIED")
    assert "attest manifest verify" in result.stdout


def test_a_manifest_is_shown_where_there_is_no_torch(manifest):
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from attest.cli.main import app\n"
        f"app(['profile', 'show', {str(manifest(principle()))!r}])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert "refuse" in done.stdout


def test_an_edited_profile_is_proven_false(attest, manifest):
    edited = principle()
    edited["profile"]["inBand"] = "0.9999"
    result = attest("profile", "show", manifest(edited), "--format", "json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["error"]["code"] == "profile_inconsistent"


def test_a_profile_that_only_claims_to_add_up_is_proven_false(attest, manifest):
    claimed = principle(profile(drop=2_000_000))
    claimed["profile"]["valid"] = True
    result = attest("profile", "show", manifest(claimed), "--format", "json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["error"]["code"] == "profile_incomplete"


def test_names_cannot_command_the_terminal(attest, statement):
    made = profile(by_source={"[blue]\x1b": 950_000})
    path = statement(principle(made, id="a\x1b[31m\u202e[red]"))
    result = attest("profile", "show", path)
    assert result.exit_code == 0
    assert "[blue]" in result.stdout
    assert "\x1b" not in result.stdout
    assert "\u202e" not in result.stdout
    assert "[red]" in result.stdout


@pytest.mark.parametrize(
    ("content", "code", "words"),
    [
        ({"principles": []}, 4, "no principle has a profile"),
        ({"other": 1}, 4, "expected a run"),
        ({"schema": "absorption-profile/9"}, 3, "expected absorption-profile/1"),
    ],
)
def test_a_file_without_profiles(attest, tmp_path, content, code, words):
    path = tmp_path / "x.json"
    path.write_text(json.dumps(content))
    result = attest("profile", "show", path)
    assert result.exit_code == code
    assert words in result.stderr


def test_a_directory_without_profiles(attest, tmp_path):
    result = attest("profile", "show", tmp_path)
    assert result.exit_code == 4
    assert "profile.json, training.json or training-manifest.json" in result.stderr


def test_pictures(attest, run, tmp_path):
    svg, png = tmp_path / "map.svg", tmp_path / "map.png"
    result = attest("profile", "show", run, "--svg", svg, "--png", png)
    assert result.exit_code == 0, result.stderr
    assert png.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    drawn = svg.read_text()
    assert drawn.startswith("<?xml")
    assert "L01" in drawn
    first = svg.read_bytes()
    attest("profile", "show", run, "--svg", svg)
    assert svg.read_bytes() == first


def test_a_name_in_a_picture_is_no_formula(attest, statement, tmp_path):
    path = statement(principle(id="$\\frac{</svg>$"))
    result = attest("profile", "show", path, "--svg", tmp_path / "map.svg")
    assert result.exit_code == 0, result.stderr
    assert "\\frac{&lt;/svg&gt;" in (tmp_path / "map.svg").read_text()


@pytest.mark.parametrize("name", ["map.png", "missing/map.svg"])
def test_a_picture_that_cannot_be_written(attest, run, tmp_path, name):
    result = attest("profile", "show", run, "--svg", tmp_path / name)
    assert result.exit_code == 4


@pytest.mark.parametrize("count", [1, 12, 13, 41, 130])
def test_any_number_of_layers_fits(attest, statement, count):
    units = tuple(f"L{i:02d}" for i in range(count))
    made = profile(
        units=units,
        blocks=count,
        allocated=tuple(range(1, count + 1)),
        drop=sum(range(count + 1)),
        by_source={"refuse": sum(range(count + 1))},
        band=(count - 1,),
    )
    path = statement(principle(made, routing={"layers": [count - 1]}))
    result = attest("profile", "show", path)
    assert result.exit_code == 0, result.stderr
    first = result.stdout.splitlines()[1]
    shades = [" ░▒▓█".index(c) for c in first if c in "░▒▓█"]
    assert len(shades) >= min(count, 65)
    assert ("one cell is 2 layers" in result.stdout) is (count > 80)
    assert all(a <= b for a, b in pairwise(shades))
