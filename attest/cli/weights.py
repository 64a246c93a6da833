"""`attest weights`: digests of a model's weights."""

from typing import Annotated, Any

import typer

from attest.cli._model import DirectoryArgument, ModelDigests, digest_model
from attest.cli._run import Answer, command, new_app
from attest.cli._text import clean
from attest.manifest import TREE_ALG

__all__ = ["app"]

app = new_app("Digest the weights of a model.")


@command(app)
def digest(
    context: typer.Context,
    directory: DirectoryArgument,
    *,
    tensors: Annotated[
        bool, typer.Option("--tensors", help="List tensors too.")
    ] = False,
) -> Answer:
    """Print the digest of every file, and the root over all tensors.

    The lines of files are those of `sha256sum`, so that it can reproduce them. The root
    is the same however the tensors are spread over safetensors files.
    """
    model = digest_model(context, directory)
    return Answer(_json(model, tensors=tensors), lambda: _text(model, tensors=tensors))


def _json(model: ModelDigests, *, tensors: bool) -> dict[str, Any]:
    value: dict[str, Any] = {
        "files": dict(model.files),
        "ignored": list(model.ignored),
        "tensorTree": None,
    }
    if model.root:
        tree = {"alg": TREE_ALG, "root": model.root, "count": len(model.tensors)}
        value["tensorTree"] = tree
    if tensors:
        value["tensors"] = [
            {
                "name": tensor.name,
                "dtype": tensor.dtype,
                "shape": list(tensor.shape),
                "digest": tensor.sha256,
            }
            for tensor in model.tensors
        ]
    return value


def _text(model: ModelDigests, *, tensors: bool) -> str:
    lines = [
        f"{found.removeprefix('sha256:')}  {clean(name)}"
        for name, found in model.files.items()
    ]
    if tensors:
        lines += [
            f"{t.sha256}  {t.dtype}{list(t.shape)}  {clean(t.name)}"
            for t in model.tensors
        ]
    if model.root:
        lines.append(f"tensor root {model.root} over {len(model.tensors)} tensors")
    else:
        lines.append("no tensor root: there is no safetensors file")
    if model.ignored:
        lines.append(f"left out: {len(model.ignored)} files of download metadata")
    return "\n".join(lines)
