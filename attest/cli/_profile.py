"""Profiles from what carries them: a run, a profile.json, a statement, a manifest."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attest.canonical import read_object
from attest.cli._read import read_input
from attest.cli._sign import TRAINING_FILE
from attest.cli._unverified import unverified_manifest
from attest.errors import ConfigurationError
from attest.hashing import MANIFEST_NAME
from attest.training.profile.document import MAX_BYTES, SCHEMA, parse_profile
from attest.training.profile.entry import profile_entry, read_profiles
from attest.training.profile.values import Profile

__all__ = ["PROFILE_FILE", "Source", "read_source"]

PROFILE_FILE = "profile.json"


@dataclass(frozen=True, slots=True)
class Source:
    """The profiles that one file holds.

    Attributes:
        kind: `profile`, `statement` or `manifest`; only the last was ever signed, and
            nobody has checked that here.
    """

    path: str
    kind: str
    profiles: tuple[Profile, ...]

    def to_json(self) -> dict[str, Any]:
        """For `--format json`."""
        return {
            "path": self.path,
            "kind": self.kind,
            "verified": False,
            "principles": [
                {
                    "id": profile.principle,
                    "layers": list(profile.band),
                    "profile": profile_entry(profile),
                }
                for profile in self.profiles
            ],
        }


def read_source(name: str) -> Source:
    """The profiles of a run directory or of a file, or of stdin for `-`.

    Raises:
        ConfigurationError: unreadable, or nothing there has a profile.
        FormatError, UnsupportedVersionError, ProfileIncompleteError: as the readers of
            profiles and manifests raise them.
    """
    path = _file(Path(name)) if name != "-" else name
    document = read_input(str(path), max_bytes=MAX_BYTES)
    value = read_object(document, max_bytes=MAX_BYTES)
    kind, profiles = _profiles(value, document)
    if not profiles:
        raise ConfigurationError(
            f"{path}: no principle has a profile",
            hint="profiles are measured while a model trains: docs/profile.md",
        )
    return Source(str(path), kind, profiles)


def _profiles(value: Mapping[str, Any], data: bytes) -> tuple[str, tuple[Profile, ...]]:
    match value:
        case {"schema": str()}:
            measured = parse_profile(data)
            return "profile", tuple(map(measured.profile, measured.allocations))
        case {"payload": _, "signatures": _}:
            manifest, _ = unverified_manifest(data)
            return "manifest", read_profiles(manifest.predicate.get("principles", []))
        case {"principles": principles}:
            return "statement", read_profiles(principles)
    raise ConfigurationError(
        f"expected a run, {PROFILE_FILE} ({SCHEMA}), {TRAINING_FILE} or a manifest",
    )


def _file(path: Path) -> Path:
    if not path.is_dir():
        return path
    names = (PROFILE_FILE, TRAINING_FILE, MANIFEST_NAME)
    for name in names:
        if (path / name).is_file():
            return path / name
    raise ConfigurationError(
        f"{path}: expected {', '.join(names[:-1])} or {names[-1]}, found none",
        hint="give the directory that training wrote, or a manifest",
    )
