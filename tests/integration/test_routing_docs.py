"""The snippets of docs/routing.md run as they stand, one after another."""

import re
import warnings
from pathlib import Path

import pytest
import torch

from attest.training.ledger import read_ledger

pytestmark = pytest.mark.training

PAGE = Path(__file__).parents[2] / "docs" / "routing.md"


@pytest.mark.filterwarnings("ignore")
def test_snippets_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CI", "1")  # TRL reports to its makers elsewhere
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    names = {}
    snippets = re.findall(
        r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for snippet in snippets:
                exec(compile(snippet, str(PAGE), "exec"), names)
    finally:
        torch.set_num_threads(threads)
    kinds = {
        path.name: [record["kind"] for record in read_ledger(path)]
        for path in (tmp_path / "run").glob("*.jsonl")
    }
    assert len(kinds) == 6
    assert kinds["sft.jsonl"] == ["stage", "step", "step"]
    assert kinds["trainer.jsonl"].count("step") == 4
    assert kinds["trainer.jsonl"].count("resume") == 1
    assert list(names["outcomes"]) == ["refuse", "tone"]
