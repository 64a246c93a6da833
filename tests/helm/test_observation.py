"""Alerts and the dashboard speak of the gateway's metrics."""

import json
import re
import shutil
import subprocess

import pytest
import yaml
from chart import CHART, ROOT

from gateway.auth import ApiKeys
from gateway.scrape import StateCollector
from gateway.settings import LimitSettings
from gateway.state import AppState

ALERTS = yaml.safe_load((CHART / "files" / "alerts.yaml").read_text("utf-8"))
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]
DASHBOARD = json.loads((CHART / "files" / "dashboard.json").read_text("utf-8"))
TARGETS = [t["expr"] for panel in DASHBOARD["panels"] for t in panel["targets"]]
EXPRESSIONS = [rule["expr"] for rule in RULES] + TARGETS
MANUAL = (ROOT / "docs" / "deploy.md").read_text("utf-8")

# Suffixes that a histogram's series have beside its name.
SERIES = re.compile(r"_(?:bucket|count|sum)$")


METRICS = {
    metric.name
    for metric in StateCollector(AppState(LimitSettings(), ApiKeys())).collect()
}


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_every_metric_is_one_of_ours(expression):
    names = set(re.findall(r"\battest_gateway_\w+", expression))
    assert names
    assert {SERIES.sub("", n).removesuffix("_total") for n in names} <= METRICS


def test_monitor_asks_the_port_that_is_served(release):
    container = release.container("gateway")
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports.get("metrics") == release.settings.get("metrics_port")
    for monitor in release.all("PodMonitor"):
        (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
        assert ports[endpoint["port"]]
        assert endpoint["path"] == "/metrics"


def test_every_metric_is_shown_or_watched():
    text = " ".join(EXPRESSIONS)
    assert not [name for name in METRICS if name not in text]


@pytest.mark.skipif(not shutil.which("promtool"), reason="needs promtool")
def test_promtool_reads_the_alerts():
    command = ["promtool", "check", "rules", str(CHART / "files" / "alerts.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"{len(RULES)} rules found" in done.stdout


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_alert_names_its_runbook(rule):
    file, _, title = rule["annotations"]["runbook"].partition(", ")
    assert file == "docs/deploy.md"
    assert f"\n### {title}\n" in MANUAL


def test_panels_do_not_overlap():
    cells = [(p["gridPos"]["x"], p["gridPos"]["y"]) for p in DASHBOARD["panels"]]
    assert len(cells) == len(set(cells))
    assert len({p["id"] for p in DASHBOARD["panels"]}) == len(cells)
