"""Reading a model's layout: its list of blocks, and what lies before and after."""

from collections.abc import Iterator

from torch import nn

from attest.errors import ConstitutionError
from attest.training.routing import Layout, layer_unit

__all__ = ["read_layout"]

# A second list of blocks with this share of the first one's parameters is another stack
# (the encoder of T5, an image tower), and depth has no single meaning.
_RIVAL_SHARE = 0.25


def read_layout(model: nn.Module) -> Layout:
    """The layout of a decoder.

    The blocks are the outermost `ModuleList` that holds most parameters. Parameters
    outside it are `stem` or `head` by the order in which the modules are declared.

    Raises:
        ConstitutionError: no such list, or a second one that is not much smaller.
    """
    stacks = sorted(_outermost_lists(model), key=lambda item: -_size(item[1]))
    name = type(model).__name__
    if not stacks or not _size(stacks[0][1]):
        raise ConstitutionError(
            f"{name}: expected a list of blocks, found none",
            hint="only decoders whose blocks stand in one ModuleList can be routed",
        )
    path, blocks = stacks[0]
    if len(stacks) > 1 and _size(stacks[1][1]) > _RIVAL_SHARE * _size(blocks):
        raise ConstitutionError(
            f"{name}: expected one list of blocks, found {path} and {stacks[1][0]}",
            hint="route the decoder alone; encoder-decoders have no single depth",
        )
    return Layout(name, path, len(blocks), _units(model, path))


def _outermost_lists(
    module: nn.Module, prefix: str = ""
) -> Iterator[tuple[str, nn.ModuleList]]:
    for name, child in module.named_children():
        path = f"{prefix}.{name}" if prefix else name
        if isinstance(child, nn.ModuleList):
            yield path, child
        else:
            yield from _outermost_lists(child, path)


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _units(model: nn.Module, blocks: str) -> dict[str, str]:
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    tied = {names[0] for names in names.values() if len(names) > 1}
    units: dict[str, str] = {}
    place = "stem"
    for name, _ in model.named_parameters():
        if name.startswith(f"{blocks}."):
            layer = name[len(blocks) + 1 :].partition(".")[0]
            units[name] = layer_unit(int(layer))
            place = "head"
        else:
            units[name] = "tied" if name in tied else place
    return units
