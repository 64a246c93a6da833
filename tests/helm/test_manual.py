"""docs/deploy.md speaks of values, commands and files that there are."""

import re

import pytest
import yaml
from chart import CHART, ROOT

from attest.cli.main import NOUNS

TEXT = (ROOT / "docs" / "deploy.md").read_text("utf-8")
VALUES = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))
NAMED = set(re.findall(r"`([a-zA-Z]+(?:\.[a-zA-Z]+)+)`", TEXT))
# Claims, and settings of the gateway.
NAMED -= {"weights.measured", "weights.protection", "engine.restarts", "engine.seal"}
GROUPS = {name.split(".")[0] for name in NAMED} & VALUES.keys()


@pytest.mark.parametrize("name", sorted(n for n in NAMED if n.split(".")[0] in GROUPS))
def test_value_exists(name):
    value = VALUES
    for part in name.split("."):
        assert part in value
        value = value[part]


def test_values_are_spoken_of():
    assert {"weights", "engine", "networkPolicy", "log"} <= GROUPS


def test_commands_exist():
    nouns = set(re.findall(r"\battest (\w+) (?=[\w-])", TEXT))
    assert nouns
    assert nouns <= NOUNS.keys()


def test_links_lead_somewhere():
    links = re.findall(r"\]\(([^)#]+)\)", TEXT)
    assert links
    assert all((ROOT / "docs" / link).exists() for link in links)
