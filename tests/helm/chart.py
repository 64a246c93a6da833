"""Rendering our chart, and looking into what came out."""

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm"
CASES = sorted(CHART.glob("ci/*.yaml"))
MISSING = 'the checkers of the chart are missing; type: pip install -e ".[helm-dev]"'

try:
    import helm_python
    import kubernetes_validate
except ImportError as error:
    raise RuntimeError(MISSING) from error

__all__ = ["CASES", "CHART", "ROOT", "helm_python", "kubernetes_validate"]


def values_of(path):
    return yaml.safe_load(path.read_text("utf-8"))


def render(values, name="demo", namespace="ai"):
    """Text of all objects, in a stable order, as `helm template` prints it."""
    chart = helm_python.Chart.load(CHART)
    files = chart.render(values, name=name, namespace=namespace)
    parts = []
    for path, text in sorted(files.items()):
        documents = re.split(r"^---$", text, flags=re.MULTILINE)
        parts += [f"---\n{part.strip()}\n" for part in documents if part.strip()]
        assert path.endswith((".yaml", ".txt"))
    return "".join(part for part in parts if "\nkind: " in part)


def objects(text):
    return [item for item in yaml.safe_load_all(text) if item]


class Release:
    """The objects of one case, by kind."""

    def __init__(self, values):
        self.values = values
        self.text = render(values)
        self.objects = objects(self.text)

    @property
    def mode(self):
        return self.values.get("mode", "sidecar")

    def all(self, kind):
        return [item for item in self.objects if item["kind"] == kind]

    def one(self, kind):
        (found,) = self.all(kind)
        return found

    @property
    def pod(self):
        return self.one("StatefulSet")["spec"]["template"]["spec"]

    @property
    def containers(self):
        return self.pod.get("initContainers", []) + self.pod["containers"]

    def container(self, name):
        (found,) = [item for item in self.containers if item["name"] == name]
        return found

    @property
    def settings(self):
        maps = [i for i in self.all("ConfigMap") if "config.yaml" in i["data"]]
        return yaml.safe_load(maps[0]["data"]["config.yaml"])
