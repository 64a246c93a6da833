"""Values that do not fit are refused while rendering, with a word on what to do."""

import copy

import pytest
from chart import CHART, Release, helm_python, render, values_of

BASE = values_of(CHART / "ci" / "sidecar-claim.yaml")


def changed(**changes):
    values = copy.deepcopy(BASE)
    for name, value in changes.items():
        *path, last = name.split("__")
        target = values
        for part in path:
            target = target.setdefault(part, {})
        target[last] = value
    return values


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"weights__csi": {"driver": "x"}}, "exactly one of"),
        ({"weights__existingClaim": ""}, "exactly one of"),
        (
            {
                "mode": "proxy",
                "proxy__upstream": "http://a",
                "weights__existingClaim": "",
            },
            "model.manifest must name",
        ),
        ({"trust__authorities": {}}, "public key of a training authority"),
        ({"trust__existingConfigMap": "a"}, "trust.files"),
        ({"log__existingSecret": "log"}, "persistence.enabled"),
        ({"signer__existingSecret": ""}, "name a key store"),
        ({"signer__uri": "awskms:alias/issuer"}, "give one"),
        (
            {
                "log__existingSecret": "log",
                "replicaCount": 2,
                "persistence__enabled": True,
            },
            "fork",
        ),
        (
            {
                "autoscaling__enabled": True,
                "autoscaling__metrics": [{}],
                "keda__enabled": True,
                "keda__triggers": [{}],
            },
            "enable one",
        ),
    ],
)
def test_values_that_do_not_fit_together(changes, words):
    with pytest.raises(helm_python.HelmError, match=words):
        render(changed(**changes))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mode", "standalone"),
        ("models", {}),
        ("model__servedName", ""),
        ("model__dtype", ""),
        ("signer__uri", "file:/tmp/key"),
        ("postgres__dsn", "postgresql://user:secret@db/attest"),
        ("signer__key", "secret"),
        ("apiKeys__keys", ["secret"]),
        ("trust__authorities", {"a.pem": "-----BEGIN PRIVATE KEY-----\n"}),
        ("trust__threshold", 0),
        ("image__digest", "latest"),
        ("weights__subPath", "../other"),
        ("weights__initContainer", {"image": "a", "securityContext": {}}),
        ("config", {"signer": "file:/tmp/key"}),
        ("config", {"upstream": "http://elsewhere"}),
        ("podSecurityContext__runAsUser", 0),
        ("containerSecurityContext__readOnlyRootFilesystem", False),
        ("containerSecurityContext__allowPrivilegeEscalation", True),
        ("proxy__upstreams", ["a"]),
        ("ingress", {"enabled": True}),
    ],
)
def test_value_is_refused_by_the_schema(name, value):
    with pytest.raises(helm_python.HelmError, match="schema"):
        render(changed(**{name: value}))


@pytest.mark.parametrize("url", ["", "engine:8000", "http://user:pass@engine"])
def test_proxy_needs_a_url_without_credentials(url):
    values = changed(mode="proxy", proxy__upstream=url)
    with pytest.raises(helm_python.HelmError, match="upstream"):
        render(values)


def test_changed_settings_restart_the_pods():
    def checksum(values):
        return render(values).partition("checksum/config: ")[2][:64]

    before = checksum(BASE)
    assert checksum(changed(gatewayId="urn:example:other")) != before
    assert checksum(changed(trust__threshold=2)) != before
    assert checksum(copy.deepcopy(BASE)) == before


def test_sysctls_reach_the_pod():
    wanted = [{"name": "net.ipv4.tcp_migrate_req", "value": "1"}]
    release = Release(changed(podSecurityContext__sysctls=wanted))
    assert release.pod["securityContext"]["sysctls"] == wanted
