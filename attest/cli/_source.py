"""Where a command reads a log: over HTTP, or in a folder that is a copy of one."""

from pathlib import Path
from urllib.parse import urlsplit

from attest.cli._http import fetch
from attest.cli._read import read_input
from attest.errors import ConfigurationError, EvidenceUnavailableError

__all__ = ["DirectorySource", "HttpSource", "Keeping", "open_source"]

# The largest thing in a log are the endorsements of a boot: two manifests' worth.
_MAX_BYTES = 32 * 1024 * 1024


class HttpSource:
    """A log at an address."""

    def __init__(self, url: str, *, api_key: str = "") -> None:
        self._prefix, self._api_key = url.rstrip("/"), api_key

    def get(self, path: str) -> bytes:
        """What stands at a path under the log's prefix.

        Raises:
            EvidenceUnavailableError: it can't be reached, or answers something else.
        """
        url = f"{self._prefix}/{path}"
        try:
            return fetch(url, api_key=self._api_key, max_bytes=_MAX_BYTES).body
        except EvidenceUnavailableError as error:
            if error.hint:
                error.hint = "the records of a log need an API key: --api-key-file FILE"
            raise


class DirectorySource:
    """A copy of a log: the same paths, as files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, path: str) -> bytes:
        """What stands in a file.

        Raises:
            EvidenceUnavailableError: there is no such file.
        """
        try:
            return (self._folder / path).read_bytes()
        except OSError as error:
            raise EvidenceUnavailableError(
                f"{self._folder / path}: {error.strerror}",
                hint="the copy of the log is not whole; make one with: "
                "attest log verify URL --save DIR",
            ) from error


class Keeping:
    """Another source, of which every file is kept in a folder."""

    def __init__(self, source: HttpSource, folder: Path) -> None:
        self._source, self._folder = source, folder

    def get(self, path: str) -> bytes:
        """What the other source gives.

        Raises:
            EvidenceUnavailableError: as the other source.
            ConfigurationError: it can't be kept.
        """
        data = self._source.get(path)
        file = self._folder / path
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
        except OSError as error:
            raise ConfigurationError(f"{file}: {error.strerror}") from error
        return data


def open_source(
    place: str, *, api_key_file: str = "", save: Path | None = None
) -> HttpSource | DirectorySource | Keeping:
    """The log at an address, or in a folder.

    The address of a gateway without a path means its log, at /log.
    """
    parts = urlsplit(place)
    if parts.scheme not in {"http", "https"}:
        if not Path(place).is_dir():
            raise ConfigurationError(
                f"{place}: neither an http address nor a folder",
                hint="give the gateway's address, such as https://gateway.example",
            )
        return DirectorySource(Path(place))
    key = ""
    if api_key_file:
        key = read_input(api_key_file).decode("ascii", "replace").strip()
    if parts.path in {"", "/"}:
        place = place.rstrip("/") + "/log"
    source = HttpSource(place, api_key=key)
    return source if save is None else Keeping(source, save)
