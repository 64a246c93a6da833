"""What every pod must be, whatever the values: judged on the parsed objects."""

import json
import re
from pathlib import Path

import pytest
from chart import CASES, Release, values_of

from attest.keys import PublicKey
from gateway.engine.install import engine_settings
from gateway.engine.spec import EngineSpec, child_environment, command_line
from gateway.settings import load_settings

# The volume types that the `restricted` Pod Security Standard allows (images: since
# Kubernetes 1.33).
RESTRICTED_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
RUNNING = {"gateway", "engine"}


@pytest.fixture(scope="module")
def sidecar():
    return Release(values_of(next(p for p in CASES if p.stem == "sidecar-claim")))


def test_pod_is_restricted(release):
    context = release.pod["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["runAsUser"] > 0
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & release.pod.keys()
    for volume in release.pod["volumes"]:
        assert volume.keys() - {"name"} <= RESTRICTED_VOLUMES


def test_every_container_is_restricted(release):
    for container in release.containers:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["runAsNonRoot"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert "hostPort" not in json.dumps(container)


def test_no_service_account_token(release):
    assert release.pod["automountServiceAccountToken"] is False
    for account in release.all("ServiceAccount"):
        assert account["automountServiceAccountToken"] is False


def test_no_service_becomes_a_setting(release):
    assert release.pod["enableServiceLinks"] is False


def test_weights_are_read_only_but_for_the_download(release):
    volumes = [v for v in release.pod["volumes"] if v["name"] == "weights"]
    seen = "weights" in release.values
    assert len(volumes) == seen
    for container in release.containers:
        mounts = [m for m in container["volumeMounts"] if m["name"] == "weights"]
        assert not mounts or container["name"] in RUNNING | {"weights"}
        if container["name"] in RUNNING:
            assert [m.get("readOnly") for m in mounts] == [True] * seen
    for volume in volumes:
        claim = volume.get("persistentVolumeClaim") or volume.get("csi")
        assert claim is None or claim["readOnly"] is True


def test_secrets_are_files_that_only_the_gateway_sees(release):
    volumes = release.pod["volumes"]
    secret = {v["name"] for v in volumes if "secret" in v}
    # A key in a key store is no secret of the cluster's.
    assert ("signer" in secret) == release.settings["signer"].startswith("file:")
    for container in release.containers:
        mounted = {m["name"] for m in container["volumeMounts"]} & secret
        assert not mounted or container["name"] == "gateway"
        assert "secretKeyRef" not in json.dumps(container)
        assert "envFrom" not in container
    assert all(v["secret"]["defaultMode"] == 0o440 for v in volumes if "secret" in v)


def test_no_object_holds_a_secret(release):
    assert not release.all("Secret")
    assert "PRIVATE KEY" not in release.text


def test_only_the_gateway_has_a_port(release):
    own = [8000, 9464] if release.all("PodMonitor") else [8000]
    for container in release.containers:
        ports = [port["containerPort"] for port in container.get("ports", [])]
        assert ports == (own if container["name"] == "gateway" else [])
    service = release.one("Service")["spec"]
    assert [port["targetPort"] for port in service["ports"]] == ["http"]


def test_network_lets_in_nothing_but_questions_and_scrapes(release):
    policies = release.all("NetworkPolicy")
    labels = release.one("StatefulSet")["spec"]["template"]["metadata"]["labels"]
    (own,) = [p for p in policies if not p["metadata"]["name"].endswith("-engine")]
    selected = own["spec"]["podSelector"]["matchLabels"]
    assert selected.items() <= labels.items()
    assert own["spec"]["policyTypes"] == ["Ingress", "Egress"]
    (rule,) = own["spec"]["ingress"]
    scraped = [{"port": "metrics"}] if release.all("PodMonitor") else []
    assert rule["ports"] == [{"port": "http"}, *scraped]


def test_nothing_goes_out_by_default(sidecar):
    assert sidecar.one("NetworkPolicy")["spec"]["egress"] == []


def test_engine_elsewhere_is_reached_by_the_gateway_alone(release):
    selector = release.values.get("proxy", {}).get("engineSelector")
    guards = [
        p["spec"]
        for p in release.all("NetworkPolicy")
        if p["metadata"]["name"].endswith("-engine")
    ]
    assert len(guards) == bool(selector)
    for guard in guards:
        assert guard["podSelector"]["matchLabels"] == selector
        (rule,) = guard["ingress"]
        (peer,) = rule["from"]
        labels = release.one("StatefulSet")["spec"]["template"]["metadata"]["labels"]
        assert peer["podSelector"]["matchLabels"].items() <= labels.items()


def test_state_has_a_volume_of_its_own(release):
    claims = release.one("StatefulSet")["spec"].get("volumeClaimTemplates", [])
    names = [v["name"] for v in release.pod["volumes"]]
    names += [claim["metadata"]["name"] for claim in claims]
    assert len(names) == len(set(names))
    mounted = {m["name"] for c in release.containers for m in c["volumeMounts"]}
    assert mounted <= set(names)
    assert "state" in mounted


def test_start_up_waits_for_hashing(release):
    weights = release.values.get("weights", {}).get("verifySeconds", 1800)
    probe = release.container("gateway")["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] >= weights


def test_gateway_starts_first_and_holds_the_engine_back(release):
    names = [c["name"] for c in release.pod.get("initContainers", [])]
    if release.mode != "sidecar":
        assert [c["name"] for c in release.pod["containers"]] == ["gateway"]
        return
    assert [c["name"] for c in release.pod["containers"]] == ["engine"]
    assert names[-2:] == ["plugin", "gateway"]
    assert release.container("gateway")["restartPolicy"] == "Always"
    assert all("restartPolicy" not in release.container(n) for n in names[:-1])


def test_time_to_drain_is_given(release):
    drain = release.values.get("drainSeconds", 30)
    assert release.pod["terminationGracePeriodSeconds"] >= drain + 30
    stopped = release.pod["containers"][0]
    assert stopped["lifecycle"]["preStop"]["sleep"]["seconds"] == 5


def test_more_pods_than_one_have_a_disruption_budget(release):
    scaled = release.all("HorizontalPodAutoscaler") + release.all("ScaledObject")
    many = bool(scaled) or release.values.get("replicaCount", 1) > 1
    assert len(release.all("PodDisruptionBudget")) == many
    for scaler in scaled:
        target = scaler["spec"]["scaleTargetRef"]
        assert target["name"] == release.one("StatefulSet")["metadata"]["name"]
        assert "replicas" not in release.one("StatefulSet")["spec"]


def test_images_by_digest_have_no_tag():
    release = Release(values_of(next(p for p in CASES if p.stem == "sidecar-image")))
    for container in release.containers:
        assert re.fullmatch(r"[\w./-]+@sha256:[0-9a-f]{64}", container["image"])


# The gateway's own code judges what the chart tells it.


def test_gateway_accepts_its_settings(release, monkeypatch, tmp_path):
    for name in ("ATTEST_MODEL", "ATTEST_PORT"):
        monkeypatch.delenv(name, raising=False)
    data = next(i for i in release.all("ConfigMap") if "config.yaml" in i["data"])
    path = tmp_path / "config.yaml"
    path.write_text(data["data"]["config.yaml"], "utf-8")
    settings = load_settings({}, path)
    assert str(settings.manifest_path).endswith("/training-manifest.json")
    uri = release.values["signer"].get("uri")
    assert settings.signer.startswith(uri or "file:/etc/attest/signer/")


def test_probes_speak_what_the_port_speaks(release):
    container = release.container("gateway")
    scheme = "HTTPS" if "tls" in release.settings else "HTTP"
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[name]["httpGet"]["scheme"] == scheme


def paths(value):
    if isinstance(value, dict | list):
        items = value.values() if isinstance(value, dict) else value
        return {path for item in items for path in paths(item)}
    found = re.fullmatch(r"(?:file:|unix:)?(/.+)", str(value))
    return {found[1]} if found else set()


def test_every_named_file_is_mounted(release):
    mounts = release.container("gateway")["volumeMounts"]
    folders = tuple(mount["mountPath"] for mount in mounts)
    named = paths(release.settings)
    assert named
    assert all(path.startswith(folders) for path in named)


def test_authorities_are_public_keys(release):
    named = {path.rsplit("/", 1)[1] for path in release.settings["authority"]}
    assert named
    for item in release.all("ConfigMap"):
        if item["metadata"]["name"].endswith("-authorities"):
            assert set(item["data"]) == named
            for text in item["data"].values():
                assert PublicKey.from_bytes(text.encode())


def spec_of(release, tmp_path):
    return EngineSpec(
        python="python3",
        model_dir=tmp_path,
        served_model_name=release.settings["served_model_name"],
        run_dir=tmp_path,
        reference=b"",
        dtype=release.settings["engine"]["dtype"],
    )


def flags(arguments):
    return {
        argument.partition("=")[0] for argument in arguments if argument[:2] == "--"
    }


def test_engine_has_the_flags_of_the_managed_one(sidecar, tmp_path):
    arguments = sidecar.container("engine")["args"]
    managed = command_line(spec_of(sidecar, tmp_path), "python3", cpu=False)
    assert flags(arguments) == flags(managed) | {"--shutdown-timeout"}
    own = {a for a in managed if a.startswith("--")}
    places = ("--uds=", "--model=", "--model-loader-extra-config=")
    same = {a for a in own if not a.startswith(places)}
    assert same <= set(arguments)


def test_engine_has_the_environment_of_the_managed_one(sidecar, tmp_path):
    spec = spec_of(sidecar, tmp_path)
    managed = child_environment(spec, "/usr/bin/python3", cpu=False, parent={})
    found = {item["name"]: item["value"] for item in sidecar.container("engine")["env"]}
    local = {"CUDA_HOME", "LD_LIBRARY_PATH", "PATH"}  # the image has its own
    assert found.keys() - {"PYTHONPATH"} == managed.keys() - local
    for name, value in managed.items():
        if not value.startswith("/") and name not in local:
            assert found[name] == value


def test_engine_is_set_up_as_the_plugin_says(sidecar):
    engine, plugin = sidecar.container("engine"), sidecar.container("plugin")
    *command, folder = plugin["args"]
    assert command == ["plugin", "install"]
    environment, arguments = engine_settings(
        Path(folder),
        reference=sidecar.settings["reference_file"],
        report=sidecar.settings["load_report"],
    )
    found = {item["name"]: item["value"] for item in engine["env"]}
    assert environment.items() <= found.items()
    assert set(arguments) <= set(engine["args"])
    mounts = {m["name"]: m for m in engine["volumeMounts"]}
    assert folder.startswith(mounts["plugin"]["mountPath"] + "/")
    assert mounts["plugin"]["readOnly"] is True


def test_engine_and_gateway_agree_on_their_files(sidecar):
    arguments = "\n".join(sidecar.container("engine")["args"])
    loader = re.search(r"--model-loader-extra-config=(.+)", arguments)[1]
    assert json.loads(loader) == {
        "reference": sidecar.settings["reference_file"],
        "report": sidecar.settings["load_report"],
    }
    socket = sidecar.settings["upstream"].removeprefix("unix:")
    assert f"--uds={socket}" in arguments
    assert socket in " ".join(sidecar.container("engine")["command"])
