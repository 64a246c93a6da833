import pytest

torch = pytest.importorskip("torch")

from gateway.engine.vllm_plugin.resident import resident_report  # noqa: E402


def model(dtype=torch.bfloat16):
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Linear(4, 3, dtype=dtype), torch.nn.Linear(3, 2, dtype=dtype)
    )


def test_same_weights_same_digest():
    assert resident_report(model()) == resident_report(model())
    report = resident_report(model())
    assert report["sound"]
    assert report["bytes"] == 2 * (4 * 3 + 3 + 3 * 2 + 2)


@pytest.mark.parametrize("name", ["0.weight", "0.bias", "1.weight", "1.bias"])
def test_each_parameter_counts(name):
    changed = model()
    with torch.no_grad():
        changed.get_parameter(name).reshape(-1)[-1].neg_()
    assert resident_report(changed)["sha256"] != resident_report(model())["sha256"]


def test_type_and_shape_count():
    assert (
        resident_report(model(torch.float16))["sha256"]
        != resident_report(model())["sha256"]
    )


def test_strides_do_not_count():
    other = model()
    other[0].weight = torch.nn.Parameter(other[0].weight.t().contiguous().t())
    assert resident_report(other) == resident_report(model())


def test_emptied_parameter_means_that_something_else_serves():
    packed = model()
    packed[1].weight = torch.nn.Parameter(torch.empty(0))
    assert not resident_report(packed)["sound"]


def test_model_without_parameters_is_not_sound():
    assert not resident_report(torch.nn.Identity())["sound"]
