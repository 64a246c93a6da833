import pytest
import torch

from attest.errors import ProfileError
from attest.training.confinement import digests
from attest.training.mechanism import named_parameters
from attest.training.profile.patching import exchange_units, mixing, snapshot

UNITS = ("L00", "L01", "L02", "L03")


def exchanged(world, parent=None):
    return exchange_units(
        world.model, parent or world.parent, world.probes, world.layout, units=UNITS
    )


def breaks_off(world):
    with mixing(world.model, world.parent, world.layout) as mix:
        mix(UNITS)
        raise ProfileError("broken")


def test_the_one_layer_that_was_trained_is_found(world):
    world.govern(steps=20)
    # Set back all but layer 1.
    for name, parameter in world.model.named_parameters():
        if world.layout.units[name] != "L01":
            parameter.data.copy_(world.parent[name])
    found = exchanged(world)["a"]
    assert found.check(4).layers == (0, 1_000_000, 0, 0)
    assert found.restore == found.insert
    assert found.restore[1] > 10**9


def test_the_model_is_left_as_it_is(world):
    world.govern(steps=4)
    before, flags = digests(named_parameters(world.model)), world.model.training
    exchanged(world)
    with pytest.raises(ProfileError, match="broken"):
        breaks_off(world)
    assert digests(named_parameters(world.model)) == before
    assert world.model.training is flags


def test_mixing_takes_the_named_units_from_the_other(world):
    other = {n: torch.full_like(p, 7.0) for n, p in world.parent.items()}
    with mixing(world.model, other, world.layout) as mix:
        mix(("L02", "head"))
        sevens = {
            world.layout.units[n]
            for n, p in world.model.named_parameters()
            if bool((p == 7).all())
        }
        mix(())
        assert all(
            torch.equal(p, world.parent[n]) for n, p in world.model.named_parameters()
        )
    assert sevens == {"L02", "head"}


@pytest.mark.parametrize("how", ["missing", "shape"])
def test_another_architecture_is_refused(world, how):
    other = snapshot(world.model)
    name = "model.layers.2.mlp.up_proj.weight"
    if how == "missing":
        del other[name]
    else:
        other[name] = other[name].T
    with pytest.raises(ProfileError, match=name):
        exchanged(world, other)
