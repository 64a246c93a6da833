"""Reading a model's layout: its list of blocks, and what lies before and after."""

from collections.abc import Iterator, Mapping, Sequence

from torch import nn
from torch.distributed.fsdp import FSDPModule

from attest.errors import ConstitutionError
from attest.training._dry_run import tensor_uses
from attest.training.mechanism import (
    choose_mechanism,
    named_parameters,
    plain_name,
    unwrap,
)
from attest.training.routing import Layout, layer_unit

__all__ = ["LayoutError", "read_layout"]

# A second list of blocks with this share of the first one's parameters is another stack
# (the encoder of an encoder-decoder), and depth has no single meaning.
_RIVAL_SHARE = 0.25


class LayoutError(ConstitutionError):
    """The model has no layout that a band could be laid over."""

    code = "layout"


def read_layout(model: nn.Module) -> Layout:
    """The layout of a decoder.

    Names are those of the model without its wrappers (DistributedDataParallel, FSDP2,
    torch.compile, PEFT): those that `named_parameters` of `attest.training.mechanism`
    gives. The blocks are the outermost `ModuleList` that holds most parameters. One
    forward on two dummy tokens, without gradients, tells what comes before and after
    them; the model's mode and hooks and the random state are left as they were.

    A tensor with uses or names at more than one place is `tied`. What the forward does
    not reach, such as the image tower of a model that was given text alone, is `aside`.
    Tensors that need no gradient now are the layout's `frozen` ones, as is the base
    under adapters.

    Raises:
        LayoutError: no such list, a second one that is not much smaller, a forward
            that fails, or trainable tensors outside the model, as of prompt tuning.
        TrainingError: a wrapper that cannot be governed, as `choose_mechanism` says.
    """
    choose_mechanism(model)  # refuses wrappers that no band can be laid over
    inner, tensors = unwrap(model), named_parameters(model)
    name = _architecture(inner)
    lists = dict(_outermost_lists(inner))
    if not any(map(_size, lists.values())):
        raise LayoutError(
            f"{name}: expected a list of blocks, found none",
            hint="only decoders whose blocks stand in one ModuleList can be routed",
        )
    _check_wrapper(model, inner, name)
    uses = _uses(inner, tensors, name)
    path = _block_list(lists, set(uses), name)
    every = inner.named_modules(remove_duplicate=False)
    paths = [plain_name(other) for other, found in every if found is lists[path]]
    units = _units(_layers(inner, paths), uses)
    frozen = frozenset(n for n, p in tensors.items() if not p.requires_grad)
    return Layout(name, path, len(lists[path]), units, frozen)


def _architecture(model: nn.Module) -> str:
    # FSDP2 makes a class of its own of every class.
    kinds = type(model).__mro__
    return next(c.__name__ for c in kinds if not issubclass(c, FSDPModule))


def _outermost_lists(
    module: nn.Module, prefix: str = ""
) -> Iterator[tuple[str, nn.ModuleList]]:
    for name, child in module.named_children():
        path = plain_name(f"{prefix}.{name}" if prefix else name)
        if isinstance(child, nn.ModuleList):
            yield path, child
        else:
            yield from _outermost_lists(child, path)


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _check_wrapper(model: nn.Module, inner: nn.Module, name: str) -> None:
    inside = {id(parameter) for parameter in inner.parameters()}
    for outside, parameter in model.named_parameters():
        if parameter.requires_grad and id(parameter) not in inside:
            raise LayoutError(
                f"{name}: {outside} is trained and belongs to no layer",
                hint="use adapters that sit in layers, such as LoRA; prompt and prefix "
                "tuning cannot be routed",
            )


def _uses(
    model: nn.Module, tensors: Mapping[str, nn.Parameter], name: str
) -> list[str]:
    if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        raise LayoutError(
            f"{name}: expected a decoder, found an encoder-decoder",
            hint="its two stacks have no single depth; route a decoder-only model",
        )
    try:
        return tensor_uses(model, tensors)
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0][:200]
        raise LayoutError(
            f"{name}: a forward on four token ids failed: "
            f"{type(error).__name__}: {reason}",
            hint="only models that answer model(input_ids) can be routed",
        ) from error


def _block_list(lists: Mapping[str, nn.ModuleList], used: set[str], name: str) -> str:
    # A list that text does not reach is no rival: the tower of another modality.
    reached = [
        path for path in lists if any(tensor.startswith(f"{path}.") for tensor in used)
    ]
    reached.sort(key=lambda path: -_size(lists[path]))
    if not reached:
        raise LayoutError(
            f"{name}: no list of blocks takes part in a forward on token ids",
            hint="read the layout before a wrapper shards or offloads the model",
        )
    if len(reached) > 1:
        first, second = (_size(lists[path]) for path in reached[:2])
        if second > _RIVAL_SHARE * first:
            raise LayoutError(
                f"{name}: expected one list of blocks, found {reached[0]} and "
                f"{reached[1]}",
                hint="route the decoder alone; two stacks have no single depth",
            )
    return reached[0]


def _units(layers: Mapping[str, set[str]], uses: Sequence[str]) -> dict[str, str]:
    depth = [number for number, name in enumerate(uses) if layers.get(name)]
    places: dict[str, set[str]] = {name: set(found) for name, found in layers.items()}
    for number, name in enumerate(uses):
        if layers[name]:
            continue
        before, after = number < depth[0], number > depth[-1]
        places[name].add("stem" if before else "head" if after else "between blocks")
    return {name: _unit(found) for name, found in places.items()}


def _unit(places: set[str]) -> str:
    if not places:
        return "aside"
    (place, *more) = places
    return "tied" if more or place == "between blocks" else place


def _layers(model: nn.Module, blocks: Sequence[str]) -> dict[str, set[str]]:
    """For every tensor by its first name: the blocks of all its names.

    `blocks` are all paths of the one list of blocks.

    A tensor that also has a name outside the blocks gets "between blocks" beside them.
    """
    first: dict[int, str] = {}
    layers: dict[str, set[str]] = {}
    outside: set[str] = set()
    for full, parameter in model.named_parameters(remove_duplicate=False):
        alias = plain_name(full)
        name = first.setdefault(id(parameter), alias)
        found = layers.setdefault(name, set())
        within = [path for path in blocks if alias.startswith(f"{path}.")]
        if within:
            number = alias[len(within[0]) + 1 :].partition(".")[0]
            found.add(layer_unit(int(number)))
        else:
            outside.add(name)
    for name in outside:
        if layers[name]:
            layers[name].add("between blocks")
    return layers
