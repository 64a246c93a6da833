"""The examples for other stacks: ours render, theirs reach the gateway."""

import os

import kserve
import pytest
import yaml
from chart import CHART, Release, values_of
from validate import validate

EXAMPLES = CHART / "examples"
OURS = sorted(EXAMPLES.glob("*/gateway.values.yaml"))


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.parent.name)
def test_our_values_render(path):
    for item in Release(values_of(path)).objects:
        validate(item)


def test_pool_selects_our_pods_and_their_gateway():
    text = (EXAMPLES / "llm-d" / "pool.yaml").read_text("utf-8")
    pool, route = yaml.safe_load_all(text)
    validate(pool)
    validate(route)
    release = Release(values_of(EXAMPLES / "llm-d" / "gateway.values.yaml"))
    template = release.one("StatefulSet")["spec"]["template"]
    selector = pool["spec"]["selector"]["matchLabels"]
    assert selector.items() <= template["metadata"]["labels"].items()
    ports = [port["containerPort"] for port in release.container("gateway")["ports"]]
    assert [port["number"] for port in pool["spec"]["targetPorts"]] == ports
    (backend,) = route["spec"]["rules"][0]["backendRefs"]
    assert backend["name"] == pool["metadata"]["name"]


def test_router_asks_our_service_and_is_let_in():
    folder = EXAMPLES / "production-stack"
    router = values_of(folder / "router.values.yaml")["routerSpec"]
    release = Release(values_of(folder / "gateway.values.yaml"))
    service = release.one("Service")
    port = service["spec"]["ports"][0]["port"]
    name = service["metadata"]["name"]
    assert router["staticBackends"] == f"http://{name}.ai.svc:{port}"
    assert router["staticModels"] == release.settings["served_model_name"]
    (rule,) = release.one("NetworkPolicy")["spec"]["ingress"]
    assert rule["from"] == [{"podSelector": {"matchLabels": router["labels"]}}]


def test_kserve_example_is_the_chart_pod():
    """After a wanted change: GOLDEN=write pytest tests/helm, then read the diff."""
    if os.environ.get("GOLDEN") == "write":
        kserve.PATH.write_text(kserve.text(), "utf-8")
    assert kserve.PATH.read_text("utf-8") == kserve.text()


def test_kserve_predictor_is_a_valid_pod():
    settings, service = kserve.manifests()
    validate(settings)
    predictor = dict(service["spec"]["predictor"])
    assert predictor.pop("minReplicas") == 1
    validate(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "harbour"},
            "spec": predictor,
        }
    )


def test_every_example_is_checked_here():
    known = {kserve.PATH, EXAMPLES / "llm-d" / "pool.yaml", *OURS}
    known.add(EXAMPLES / "production-stack" / "router.values.yaml")
    assert {path for path in EXAMPLES.rglob("*") if path.is_file()} == known
