import pytest

from attest.errors import ConfigurationError
from gateway.settings import Settings, load_settings

FLAGS = {"model": "m", "authority": ["a.pem"], "signer": "file:i.pem"}


@pytest.fixture
def config(tmp_path):
    def write(text):
        path = tmp_path / "gateway.yaml"
        path.write_text(text)
        return path

    return write


def test_defaults():
    settings = load_settings(FLAGS)
    assert settings.host == "127.0.0.1"
    assert settings.manifest_path.name == "training-manifest.json"


def test_flag_beats_environment_beats_file(config, monkeypatch):
    path = config("port: 1\nhost: file\ngateway_id: urn:file\n")
    monkeypatch.setenv("ATTEST_PORT", "2")
    monkeypatch.setenv("ATTEST_HOST", "environment")
    settings = load_settings({**FLAGS, "port": 3}, path)
    assert settings.port == 3
    assert settings.host == "environment"
    assert settings.gateway_id == "urn:file"


def test_nested_values_of_all_sources_meet(config, monkeypatch):
    path = config("engine: {max_model_len: 9, dtype: file}\n")
    monkeypatch.setenv("ATTEST_ENGINE__DTYPE", "environment")
    engine = load_settings({**FLAGS, "engine": {"python": "p"}}, path).engine
    assert (engine.python, engine.dtype, engine.max_model_len) == (
        "p",
        "environment",
        9,
    )


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("prot: 1\n", "prot: Extra inputs"),
        ("engine: {load_format: auto}\n", "engine.load_format: Extra inputs"),
        ("port: 70000\n", "port: "),
        ("limits: {max_concurrency: 0}\n", "limits.max_concurrency"),
    ],
)
def test_unknown_or_unusable_setting_is_named(config, text, match):
    with pytest.raises(ConfigurationError, match=match):
        load_settings(FLAGS, config(text))


def test_missing_settings_are_named():
    with pytest.raises(ConfigurationError, match=r"authority: Field required.*signer"):
        load_settings({})


@pytest.mark.parametrize(
    ("flags", "match"),
    [
        ({"model": None}, "model: needed unless upstream"),
        ({"reference_file": "r"}, "reference_file: for an engine at upstream only"),
        ({"load_report": "r"}, "load_report: needs reference_file"),
        ({"upstream": "http://e", "load_report": "r"}, "load_report: needs reference"),
        ({"upstream": "http://e", "engine": {"extra_args": ["--seed=1"]}}, "extra_arg"),
        ({"upstream": "http://e", "engine": {"max_model_len": 1}}, "max_model_len"),
        ({"upstream": "http://e", "engine": {"seal": "all"}}, "engine.seal"),
        ({"upstream": "engine:8000"}, "upstream: "),
    ],
)
def test_settings_that_go_against_each_other(flags, match):
    with pytest.raises(ConfigurationError, match=match):
        load_settings({**FLAGS, **flags})


def test_no_model_directory_needs_a_manifest():
    settings = load_settings({**FLAGS, "model": None, "upstream": "unix:/run/e.sock"})
    with pytest.raises(ConfigurationError, match="manifest: needed"):
        _ = settings.manifest_path


def test_no_authority_at_all():
    with pytest.raises(ConfigurationError, match="authority"):
        load_settings({**FLAGS, "authority": []})


def test_value_of_a_refused_setting_is_not_shown():
    with pytest.raises(ConfigurationError) as caught:
        load_settings({**FLAGS, "signer": "-----BEGIN PRIVATE KEY-----"})
    assert "BEGIN" not in str(caught.value)


def test_missing_config_file(tmp_path):
    with pytest.raises(ConfigurationError, match="is not a file"):
        load_settings(FLAGS, tmp_path / "absent.yaml")


def test_every_setting_says_what_it_does():
    groups = ("engine", "limits", "policy", "tls")
    for model in (Settings, *(Settings.model_fields[n].annotation for n in groups)):
        for name, field in model.model_fields.items():
            assert field.description or name in groups, name
