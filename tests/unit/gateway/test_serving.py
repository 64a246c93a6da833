import copy
from types import SimpleNamespace

import pytest

from attest.errors import ConfigurationError
from gateway.errors import StartupRefusedError
from gateway.serving import _FIXED, boot_evidence, check_arguments, check_evidence

ROOT = "sha256:" + "0" * 64
TEMPLATE = "sha256:" + "1" * 64


@pytest.fixture
def manifest():
    return SimpleNamespace(
        tensor_root=ROOT,
        tensor_count=3,
        runtime=SimpleNamespace(dtypes=("float32",), quantizations=()),
        predicate={"runtime": {"chatTemplate": TEMPLATE}},
    )


@pytest.fixture
def evidence():
    return {
        "nonce": "n",
        "workers": [{"started": 1, "loads": [{"root": ROOT, "count": 3}]}],
        "serving_state": {
            **copy.deepcopy(dict(_FIXED)),
            "dtype": "float32",
            "quantization": None,
            "chat_template_sha256": TEMPLATE,
            "installed_middleware": [
                "vllm.entrypoints.serve.elastic_ep.middleware.ScalingMiddleware",
                "starlette.middleware.cors.CORSMiddleware",
            ],
        },
        "entry_points": {
            "vllm.general_plugins": [
                {"name": "attested", "dist": "attest-gateway"},
                {"name": "other", "dist": "vllm"},
            ]
        },
        "routes": ["GET /health", "POST /v1/chat/completions"],
        "versions": {"vllm": "0.32.0", "python": "3.11"},
    }


def check(manifest, evidence, nonce="n", dtype="float32"):
    check_evidence(manifest, evidence, nonce=nonce, dtype=dtype)


def test_honest_report_passes(manifest, evidence):
    check(manifest, evidence)


@pytest.mark.parametrize("name", sorted(_FIXED))
def test_each_fixed_setting_must_be_reported(manifest, evidence, name):
    del evidence["serving_state"][name]
    with pytest.raises(StartupRefusedError, match=f"{name}: .*found nothing"):
        check(manifest, evidence)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lora", {"max_loras": 1}),
        ("lora_modules", ["a=b"]),
        ("speculative", {"model": "d"}),
        ("logits_processors", ["x"]),
        ("trust_remote_code", True),
        ("trust_remote_code", 0),
        ("hf_overrides", {"rope": 1}),
        ("default_sampling", {"temperature": 2.0}),
        ("middleware", ["evil"]),
        ("switches", {"VLLM_SERVER_DEV_MODE": "1"}),
        ("load_format", "auto"),
        ("plugins", "attested,attested_evidence,evil"),
        ("model", "/elsewhere"),
        ("tokenizer", "/elsewhere"),
        ("dtype", "bfloat16"),
        ("quantization", "fp8"),
        ("chat_template_sha256", ROOT),
    ],
)
def test_other_serving_state_is_refused(manifest, evidence, name, value):
    evidence["serving_state"][name] = value
    with pytest.raises(StartupRefusedError, match="expected"):
        check(manifest, evidence)


@pytest.mark.parametrize(
    "workers",
    [
        [],
        None,
        [{"started": 1, "loads": []}],
        [{"started": 2, "loads": [{"root": ROOT, "count": 3}]}],
        [{"started": 1, "loads": [{"root": TEMPLATE, "count": 3}]}],
        [{"started": 1, "loads": [{"root": ROOT, "count": 2}]}],
        [
            {"started": 1, "loads": [{"root": ROOT, "count": 3}]},
            {"started": 1, "loads": [{"root": TEMPLATE, "count": 3}]},
        ],
    ],
)
def test_every_worker_must_have_loaded_the_root_once(manifest, evidence, workers):
    evidence["workers"] = workers
    with pytest.raises(StartupRefusedError):
        check(manifest, evidence)


def test_report_for_another_nonce_is_refused(manifest, evidence):
    with pytest.raises(StartupRefusedError, match="nonce"):
        check(manifest, evidence, nonce="m")


@pytest.mark.parametrize(
    "name", ["serving_state", "entry_points", "routes", "versions"]
)
def test_report_without_a_part_is_refused(manifest, evidence, name):
    del evidence[name]
    with pytest.raises(StartupRefusedError, match=name):
        check(manifest, evidence)


def test_logits_processor_package_is_refused(manifest, evidence):
    evidence["entry_points"]["vllm.logits_processors"] = [{"dist": "evil"}]
    with pytest.raises(StartupRefusedError, match="evil"):
        check(manifest, evidence)


@pytest.mark.parametrize(
    "installed",
    [None, ["starlette.middleware.base.BaseHTTPMiddleware"], ["evil.Middleware"]],
)
def test_middleware_of_others_inside_the_engine_is_refused(
    manifest, evidence, installed
):
    evidence["serving_state"]["installed_middleware"] = installed
    with pytest.raises(StartupRefusedError, match="middleware in the engine"):
        check(manifest, evidence)


def test_load_format_registered_by_two_packages_is_refused(manifest, evidence):
    evidence["entry_points"]["vllm.general_plugins"].append(
        {"name": "attested", "dist": "evil"}
    )
    with pytest.raises(StartupRefusedError, match="provide attested"):
        check(manifest, evidence)


@pytest.mark.parametrize("path", ["/collective_rpc", "/v1/load_lora_adapter", "/sleep"])
def test_engine_with_an_open_back_door_is_refused(manifest, evidence, path):
    evidence["routes"].append(f"POST {path}")
    with pytest.raises(StartupRefusedError, match=path):
        check(manifest, evidence)


def test_allowed_quantization(manifest, evidence):
    manifest.runtime.quantizations = ("fp8",)
    evidence["serving_state"]["quantization"] = "fp8"
    check(manifest, evidence)


def test_boot_evidence_holds_no_float(evidence):
    evidence["serving_state"]["seed"] = 0.5
    evidence["serving_state"]["list"] = [{"a": 1.25}]
    found = boot_evidence(evidence)
    assert found["engine"] == {"name": "vllm", "version": "0.32.0", "dtype": "float32"}
    assert found["serving_state"]["seed"] == "0.5"
    assert found["serving_state"]["list"] == [{"a": "1.25"}]


@pytest.mark.parametrize(
    "argument",
    [
        "--enable-lora",
        "--load-format=auto",
        "--trust-remote-code",
        "--middleware",
        "-O3",
    ],
)
def test_flag_that_could_weaken_the_proof(argument):
    with pytest.raises(ConfigurationError, match="is not allowed"):
        check_arguments(["--seed", "1", argument, "x"])


def test_harmless_flags():
    check_arguments(["--max-num-seqs=8", "--tensor-parallel-size", "2"])
