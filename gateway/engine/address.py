"""Where an engine answers: a Unix socket or a URL."""

from dataclasses import dataclass
from pathlib import Path

__all__ = ["ADDRESS_PATTERN", "Address"]

# In the syntax that Rust's regex has in common with Python's; or empty.
ADDRESS_PATTERN = r"^(?:https?://[^\s/?#@]+(?:/[^\s?#]*)?|unix:/[^\s]+)?$"


@dataclass(frozen=True, slots=True)
class Address:
    """One address.

    Attributes:
        base_url: what request paths are appended to. For a Unix socket its host's name
            is never resolved.
        socket: path of the Unix socket, None for TCP.
    """

    base_url: str
    socket: Path | None = None

    @classmethod
    def parse(cls, text: str) -> "Address":
        """From `http://…`, `https://…` or `unix:/path`, as `ADDRESS_PATTERN` has it."""
        if text.startswith("unix:"):
            return cls.of_socket(Path(text.removeprefix("unix:")))
        return cls(text.rstrip("/"))

    @classmethod
    def of_socket(cls, path: Path) -> "Address":
        """A Unix socket's."""
        return cls("http://engine", path)

    @property
    def tls(self) -> bool:
        """Whether it is reached by TLS."""
        return self.base_url.startswith("https://")

    def __str__(self) -> str:
        return self.base_url if self.socket is None else f"unix:{self.socket}"
