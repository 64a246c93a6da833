import hashlib
import json
import subprocess
import sys

import pytest

from attest.training.schedule import parse_schedule

TEXT = """\
schema: constitution/1
id: acme
version: 1.0.0
principles:
  - id: refuse
    title: Refuse
    class: safety-critical
    text: Decline.
    band: {from: 500, to: 1000, units: [tied]}
    anchors: {keep: 8}
    evaluation: {predicate: exact, heldout: heldout.jsonl}
    requirement: {attack-suite: std-1, min-steps-below-half: 10, on-miss: fail}
  - {id: tone, title: Tone, class: adaptable, text: Be kind., band: {layers: [0]}}
  - {id: keep, title: Keep, class: capability, text: As before.}
"""
CONFIG = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "tie_word_embeddings": True,
}


@pytest.fixture
def constitution(tmp_path):
    path = tmp_path / "constitution.yaml"
    path.write_text(TEXT)
    return path


@pytest.fixture
def revised(constitution):
    def write(*edits):
        text = TEXT
        for old, new in edits:
            assert old in text
            text = text.replace(old, new)
        path = constitution.with_name("new.yaml")
        path.write_text(text)
        return path

    return write


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    names = ("refuse", "refuse", "tone", "keep")
    rows = "".join(json.dumps({"principle": name}) + "\n" for name in names)
    (folder / "train.jsonl").write_text(rows + '{"text": "x"}\n')
    (folder / "heldout.jsonl").write_text(rows)
    return folder


@pytest.fixture
def config(tmp_path):
    def write(**more):
        folder = tmp_path / "config-only"
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(json.dumps(CONFIG | more))
        return folder

    return write


# --- check ---------------------------------------------------------------------------


def test_check(attest, constitution):
    result = attest("constitution", "check", constitution)
    assert result.exit_code == 0
    assert "acme 1.0.0" in result.stdout
    row = next(line for line in result.stdout.splitlines() if line.startswith("refuse"))
    for word in ("safety-critical", "500-1000 + tied", "8 keep", "10 steps, else fail"):
        assert word in row
    assert "anchored only" in result.stdout


def test_check_counts_rows(attest, constitution, data):
    result = attest("constitution", "check", constitution, "--data", data)
    assert result.exit_code == 0
    assert "train.jsonl: 1 rows belong to no principle" in result.stdout
    said = json.loads(
        attest(
            "constitution", "check", constitution, "--data", data, "--format", "json"
        ).stdout
    )
    assert said["unselected"] == {"train.jsonl": 1}
    counts = {p["id"]: (p["rows"], p["heldout"]) for p in said["principles"]}
    assert counts["refuse"] == ({"train.jsonl": 2}, 2)
    assert counts["keep"] == ({"train.jsonl": 1}, None)


@pytest.mark.parametrize(
    ("name", "row", "code"),
    [
        ("train", "", "principle_without_data"),
        ("heldout", "", "principle_without_data"),
        ("train", '{"principle": "nobody"}\n', "unknown_principle"),
        ("train", "x\n", "configuration"),
    ],
)
def test_check_of_bad_data(attest, constitution, data, *, name, row, code):
    (data / f"{name}.jsonl").write_text(row)
    arguments = ["--data", data, "--format", "json"]
    result = attest("constitution", "check", constitution, *arguments)
    assert result.exit_code == 4
    error = json.loads(result.stdout)["error"]
    assert error["code"] == code
    assert error["hint"]


def test_row_of_two_principles_has_its_own_code(attest, revised, data):
    path = revised(
        ("text: Be kind.", "text: Be kind., data: {where: {principle: keep}}")
    )
    result = attest("constitution", "check", path, "--data", data, "--format", "json")
    assert json.loads(result.stdout)["error"]["code"] == "ambiguous_row"


def test_check_of_a_bad_file(attest, revised):
    result = attest("constitution", "check", revised(("Decline.", "!x Decline.")))
    assert result.exit_code == 4
    assert "new.yaml: constitution: YAML: line 8: tags" in result.stderr
    assert "hint: " in result.stderr


def test_check_and_diff_load_no_torch(constitution):
    code = (
        "import sys; from attest.cli.main import main; sys.argv[1:] = {!r}\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print('torch' in sys.modules)"
    )
    for arguments in (["check"], ["diff", str(constitution)]):
        words = ["constitution", *arguments, str(constitution), "--quiet"]
        done = subprocess.run(
            [sys.executable, "-c", code.format(words)], capture_output=True, check=True
        )
        assert done.stdout == b"False\n"


# --- compile -------------------------------------------------------------------------


def picture(result):
    """The cells of every principle, without the words around them."""
    rows = [line.split() for line in result.stdout.splitlines()]
    return {
        row[0]: [cell for cell in row if set(cell) <= set("█▒·")]
        for row in rows
        if row and row[0] in ("refuse", "tone", "keep")
    }


def test_compile(attest, constitution, config):
    result = attest("constitution", "compile", constitution, "--model", config())
    assert result.exit_code == 0, result.stderr
    assert "LlamaForCausalLM: 4 blocks in model.layers" in result.stdout
    # Blocks, head, tied. All embeddings of this model are tied, so it has no stem.
    assert picture(result) == {
        "refuse": ["··██", "·", "█"],
        "tone": ["█···", "·", "·"],
        "keep": ["····", "·", "·"],
    }
    assert "written" not in result.stdout


def test_compiled_file(attest, constitution, config, tmp_path):
    path = tmp_path / "schedule.json"
    arguments = ["--model", config(), "--output", path, "--format", "json"]
    result = attest("constitution", "compile", constitution, *arguments)
    said = json.loads(result.stdout)
    content = path.read_bytes()
    assert said["path"] == str(path)
    assert said["digest"] == "sha256:" + hashlib.sha256(content).hexdigest()
    assert said["schedule"] == json.loads(content)
    schedule = parse_schedule(content)
    assert schedule.digest == said["digest"]
    assert "model.embed_tokens.weight" in schedule.route("refuse").tensors


def test_compiled_file_is_not_overwritten(attest, constitution, config, tmp_path):
    path = tmp_path / "schedule.json"
    path.write_text("old")
    arguments = ["--model", config(), "--output", path]
    result = attest("constitution", "compile", constitution, *arguments)
    assert result.exit_code == 4
    assert path.read_text() == "old"


def test_many_blocks_share_cells(attest, constitution, config):
    arguments = ["--model", config(num_hidden_layers=126)]
    result = attest("constitution", "compile", constitution, *arguments)
    cells = picture(result)["refuse"][0]
    assert len(cells) == 63
    # The band starts at block 63 and 63 is the second block of a cell.
    assert cells == 31 * "·" + "▒" + 31 * "█"
    assert "▒ some of the 2 blocks" in result.stdout


@pytest.mark.parametrize(
    ("edit", "more", "code"),
    [
        (("500", "999"), {}, "empty_band"),
        (("[0]", "[4]"), {}, "constitution"),
        (("[tied]", "[tied]"), {"tie_word_embeddings": False}, "constitution"),
        (("500", "500"), {"model_type": "bert-of-mine"}, "layout"),
        (
            ("500", "500"),
            {"model_type": "t5", "architectures": ["T5ForConditionalGeneration"]},
            "layout",
        ),
    ],
)
def test_compile_errors_have_their_own_codes(
    attest, revised, config, *, edit, more, code
):
    arguments = ["--model", config(**more), "--format", "json"]
    result = attest("constitution", "compile", revised(edit), *arguments)
    assert result.exit_code == 4
    error = json.loads(result.stdout)["error"]
    assert error["code"] == code
    assert error["hint"]


def test_compile_without_config(attest, constitution, tmp_path):
    arguments = ["--model", tmp_path / "nowhere"]
    result = attest("constitution", "compile", constitution, *arguments)
    assert result.exit_code == 4
    assert "config.json" in result.stderr


# --- diff ----------------------------------------------------------------------------


def test_diff_says_what_changed(attest, constitution, revised):
    path = revised(("Decline.", "Accept."), ("[0]", "[0, 1]"), ("1.0.0", "2.0.0"))
    result = attest("constitution", "diff", constitution, path)
    assert result.exit_code == 0
    assert "text: 'Decline.' → 'Accept.'" in result.stdout
    assert "band: layers 0 → layers 0,1" in result.stdout
    assert "calls for 2.0.0 or later (major)" in result.stdout


def test_diff_with_too_small_a_version_is_a_no(attest, constitution, revised):
    path = revised(("Decline.", "Accept."), ("1.0.0", "1.1.0"))
    result = attest("constitution", "diff", constitution, path)
    assert result.exit_code == 1
    assert "FAILED" in result.stdout
    said = json.loads(
        attest("constitution", "diff", constitution, path, "--format", "json").stdout
    )
    assert said["enough"] is False
    assert (said["needed"], said["least"]) == ("major", "2.0.0")
    assert said["changes"][0]["principle"] == "refuse"


def test_diff_of_the_same(attest, constitution):
    result = attest("constitution", "diff", constitution, constitution)
    assert result.exit_code == 0
    assert "nothing changed" in result.stdout


def test_diff_of_a_version_that_goes_back(attest, constitution, revised):
    result = attest("constitution", "diff", revised(("1.0.0", "1.0.1")), constitution)
    assert result.exit_code == 1
    assert "earlier" in result.stdout


def test_diff_of_two_constitutions(attest, constitution, revised):
    result = attest("constitution", "diff", constitution, revised(("acme", "other")))
    assert result.exit_code == 4
    assert "acme and other" in result.stderr


def test_words_of_a_constitution_cannot_act_on_the_terminal(
    attest, constitution, revised
):
    # The parser refuses controls; what it lets through must not join words or lines.
    path = revised(("Decline.", '"[bold red]x\\nok version"'), ("1.0.0", "2.0.0"))
    result = attest("constitution", "diff", constitution, path)
    assert "[bold red]x" in result.stdout
    assert not [line for line in result.stdout.splitlines() if line == "ok version"]
