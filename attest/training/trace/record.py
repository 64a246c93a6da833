"""The files of a trace: exact deltas per principle and a sketch per step."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from attest.errors import ConfigurationError
from attest.training.trace.values import SKETCHES, Threshold, trace_digests

__all__ = ["FORMAT", "Record", "Track", "sketch_digest"]

FORMAT = "attest-trace/1"
_METADATA = "trace"


@dataclass(slots=True)
class Track:
    """What is kept of the steps of one principle.

    Attributes:
        names: the tensors that its steps may change, sorted.
        deltas: what its steps added to them, float32; summed over all principles it is
            the whole change.
        sketches: one row per step: float16, divided by the largest magnitude in it.
        scales: that magnitude.
        steps: number of each step among all that were observed, from 0.
    """

    names: tuple[str, ...]
    deltas: dict[str, torch.Tensor]
    sketches: list[torch.Tensor] = field(default_factory=list)
    scales: list[float] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Record:
    """All tracks of a run, by principle; "" stands for unrouted steps.

    Attributes:
        side: a matrix is sketched by side x side numbers.
        momentum: the decay by which a step's change was taken apart into what earlier
            steps still pushed and what its own batch did.
        units: unit (`L00`, ...) of every tensor, in the order of the model.
        threshold: the least gain that is put down to governed training.
    """

    side: int
    momentum: float
    units: Mapping[str, str]
    tracks: dict[str, Track] = field(default_factory=dict)
    threshold: Threshold = field(default_factory=Threshold)

    @property
    def steps(self) -> int:
        """How many steps were observed."""
        return sum(len(track.steps) for track in self.tracks.values())

    def write(self, folder: Path) -> dict[str, str]:
        """Write `deltas-*.safetensors` and `sketches.safetensors` into a new folder.

        Only the owner can read them: they tell about training data. Returns their
        digests, as `training.trace` of the statement.

        Raises:
            FileExistsError: the folder exists.
        """
        folder.mkdir(parents=True)
        sketches: dict[str, torch.Tensor] = {}
        for principle, track in self.tracks.items():
            deltas = {name: t.cpu().contiguous() for name, t in track.deltas.items()}
            save_file(deltas, folder / _deltas_file(principle))
            sketches[f"{principle}/sketch"] = torch.stack(track.sketches)
            sketches[f"{principle}/scale"] = torch.tensor(track.scales)
            sketches[f"{principle}/step"] = torch.tensor(track.steps)
        content = {
            "format": FORMAT,
            "side": self.side,
            "momentum": self.momentum,
            "units": list(self.units.items()),
            "names": {p: track.names for p, track in self.tracks.items()},
            "threshold": asdict(self.threshold),
        }
        # One member: safetensors writes several in no fixed order.
        metadata = {_METADATA: json.dumps(content)}
        save_file(sketches, folder / SKETCHES, metadata=metadata)
        for file in folder.iterdir():
            file.chmod(0o600)
        return trace_digests(folder)

    @classmethod
    def read(cls, folder: Path) -> "Record":
        """What `write` wrote.

        Raises:
            ConfigurationError: a file is missing, of another format, or damaged.
        """
        try:
            return cls._read(folder)
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            if isinstance(error, ConfigurationError):
                raise
            raise ConfigurationError(
                f"{folder}: no complete trace ({type(error).__name__})",
                hint="a TraceRecorder writes it at the end of a run",
            ) from error

    @classmethod
    def _read(cls, folder: Path) -> "Record":
        path = folder / SKETCHES
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
        content = json.loads(metadata[_METADATA])
        if content["format"] != FORMAT:
            raise ConfigurationError(f"{path}: expected format {FORMAT}")
        sketches = load_file(path)
        tracks = {
            principle: Track(
                tuple(names),
                load_file(folder / _deltas_file(principle)),
                list(sketches[f"{principle}/sketch"]),
                sketches[f"{principle}/scale"].tolist(),
                sketches[f"{principle}/step"].tolist(),
            )
            for principle, names in content["names"].items()
        }
        return cls(
            int(content["side"]),
            float(content["momentum"]),
            dict(content["units"]),
            tracks,
            Threshold(**content["threshold"]),
        )

    def parent(self, weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The tensors that steps changed, float32, as they were before all of them.

        `weights` are those after the last step. Right up to the float32 rounding of the
        sums, so that a trace needs no second copy of the parent.
        """
        parent: dict[str, torch.Tensor] = {}
        for track in self.tracks.values():
            for name, delta in track.deltas.items():
                after = parent.get(name, weights[name].detach().float())
                parent[name] = after - delta.to(after.device)
        return parent


def sketch_digest(sketch: torch.Tensor, scale: float) -> str:
    """SHA-256 over the float16 numbers, then the float32 scale, little-endian."""
    data = sketch.numpy().astype("<f2").tobytes()
    data += torch.tensor([scale]).numpy().astype("<f4").tobytes()
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _deltas_file(principle: str) -> str:
    return f"deltas-{principle}.safetensors" if principle else "deltas.safetensors"
