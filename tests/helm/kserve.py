"""The KServe example, made from the chart's own sidecar pod."""

import yaml
from chart import CASES, CHART, Release, values_of

PATH = CHART / "examples" / "kserve" / "inferenceservice.yaml"

HEAD = """\
# The sidecar pod as a KServe InferenceService. KServe sends questions to the port of
# `kserve-container`; the gateway listens there, since all containers of a pod share one
# network. The engine itself has only a socket file.
#
# It brings no NetworkPolicy: let nobody but KServe's ingress reach port 8000.
# Made from the chart's pod; a test keeps them alike.
"""


class _Dumper(yaml.SafeDumper):
    """Lists below their key, and text of several lines as it is read."""

    def increase_indent(self, *, flow=False, **_):
        return super().increase_indent(flow=flow)


def _text(dumper, data):
    style = "|" if "\n" in data else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", data, style=style)


_Dumper.add_representer(str, _text)


def manifests():
    """The ConfigMap and the InferenceService."""
    values = values_of(next(path for path in CASES if path.stem == "sidecar-claim"))
    values["trust"] = {
        "existingConfigMap": "training-authorities",
        "files": ["lab.pub.pem"],
    }
    values["fullnameOverride"] = "harbour"
    values["image"] = {"repository": "registry.example.com/attest-gateway"}
    release = Release(values)
    settings, pod = release.one("ConfigMap"), release.pod
    settings["metadata"] = {"name": "harbour", "namespace": "ai"}
    for name in ("serviceAccountName", "topologySpreadConstraints"):
        del pod[name]
    (engine,) = pod["containers"]
    engine["name"] = "kserve-container"
    engine["ports"] = [{"containerPort": 8000, "protocol": "TCP"}]
    service = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {
            "name": "harbour",
            "namespace": "ai",
            "annotations": {"serving.kserve.io/deploymentMode": "RawDeployment"},
        },
        "spec": {"predictor": {"minReplicas": 1, **pod}},
    }
    return [settings, service]


def text():
    """The whole file."""
    parts = (yaml.dump(i, Dumper=_Dumper, sort_keys=False) for i in manifests())
    return HEAD + "---\n".join(parts)
