"""Where a command reads a log: over HTTP, or in a folder that is a copy of one."""

import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from attest.cli._read import read_input
from attest.errors import ConfigurationError, EvidenceUnavailableError

__all__ = ["DirectorySource", "HttpSource", "Keeping", "open_source"]

_TIMEOUT_SECONDS = 30
# The largest thing in a log are the endorsements of a boot: two manifests' worth.
_MAX_BYTES = 32 * 1024 * 1024


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """An API key goes to the address that was typed, nowhere else."""

    def redirect_request(self, *_: Any) -> None:
        return None


class HttpSource:
    """A log at an address."""

    def __init__(self, url: str, *, api_key: str = "") -> None:
        self._prefix = url.rstrip("/")
        self._headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        self._opener = urllib.request.build_opener(_NoRedirects)

    def get(self, path: str) -> bytes:
        """What stands at a path under the log's prefix.

        Raises:
            EvidenceUnavailableError: it can't be reached, or answers something else.
        """
        url = f"{self._prefix}/{path}"
        request = urllib.request.Request(url, headers=self._headers)  # noqa: S310  # open_source lets http and https through alone
        try:
            with self._opener.open(request, timeout=_TIMEOUT_SECONDS) as answer:
                data: bytes = answer.read(_MAX_BYTES + 1)
        except urllib.error.HTTPError as error:
            error.close()
            hint = ""
            if error.code == 401:
                hint = "the records of a log need an API key: --api-key-file FILE"
            raise EvidenceUnavailableError(
                f"{url}: status {error.code}", hint=hint
            ) from error
        except (OSError, HTTPException) as error:
            reason = getattr(error, "reason", None) or type(error).__name__
            raise EvidenceUnavailableError(f"{url}: {reason}") from error
        if len(data) > _MAX_BYTES:
            raise EvidenceUnavailableError(f"{url}: more than {_MAX_BYTES} bytes")
        return data


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
