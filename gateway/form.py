"""Reading multipart/form-data (RFC 7578) so that no other reader sees another form.

The digest of a request is over its body, and the boundary stands in a header. So the
body must begin with it: then one body has one boundary. Whatever two readers could take
in two ways is refused: text before or after the parts, padding, folded or unknown
header lines, escapes in names, a name that comes twice.
"""

import re
from typing import Any

from attest.digests import digest
from gateway.errors import RequestError

__all__ = ["boundary_of", "read_form"]

_MAX_PARTS = 64
_MAX_HEAD = 2048
_MAX_TEXT = 256 * 1024

# RFC 2046 §5.1.1, without the space.
_TYPE = re.compile(
    rb"multipart/form-data; ?boundary="
    rb"(?:\"([0-9A-Za-z'()+_,./:=?-]{1,70})\"|([0-9A-Za-z'+_.-]{1,70}))",
    re.IGNORECASE,
)
_NAME = rb"[A-Za-z0-9_]{1,64}(?:\[\])?"
_DISPOSITION = re.compile(
    rb"content-disposition: ?form-data; ?name=\"(%s)\""
    rb"(; ?filename=\"[^\"\\\x00-\x1f\x7f]{0,255}\")?" % _NAME,
    re.IGNORECASE,
)
_OTHER = re.compile(rb"content-type: ?[ -~]{1,255}", re.IGNORECASE)
_LENGTH = re.compile(rb"content-length: ?([0-9]{1,10})", re.IGNORECASE)


def boundary_of(content_type: bytes) -> bytes:
    """The boundary that a Content-Type names.

    Raises:
        RequestError: it is not multipart/form-data with one boundary (415).
    """
    match = _TYPE.fullmatch(content_type)
    if match is None:
        raise RequestError(
            "content-type: expected multipart/form-data with a boundary", status=415
        )
    return bytes(match[1] or match[2])


def read_form(body: bytes, boundary: bytes) -> dict[str, Any]:
    """The fields of a form: text, lists of texts under `name[]`, the file's digest.

    `stream` is a boolean, as it is in JSON.

    Raises:
        RequestError: it is no form that every reader reads alike; never quotes it.
    """
    opening = b"--" + boundary + b"\r\n"
    pieces = body.split(b"\r\n--" + boundary, _MAX_PARTS + 1)
    if not body.startswith(opening):
        raise _unusable("it must begin with the boundary of its content-type")
    if len(pieces) > _MAX_PARTS + 1:
        raise _unusable(f"more than {_MAX_PARTS} parts")
    *parts, last = pieces
    if last not in (b"--", b"--\r\n"):
        raise _unusable("it must end with its closing boundary")
    fields: dict[str, Any] = {}
    for number, part in enumerate(parts):
        start = len(opening) if number == 0 else 2
        if number and not part.startswith(b"\r\n"):
            raise _unusable("its boundary stands within a part")
        _add(fields, *_part(part[start:]))
    if "stream" in fields:
        fields["stream"] = _boolean(fields["stream"])
    return fields


def _boolean(text: str) -> bool:
    # Engines take 1, on and yes for true as well.
    if text.lower() not in ("true", "false"):
        raise RequestError("stream: must be true or false", param="stream")
    return text.lower() == "true"


def _part(part: bytes) -> tuple[str, str, bool]:
    head, found, content = part[: _MAX_HEAD + 4].partition(b"\r\n\r\n")
    if not found:
        raise _unusable("a part without a head, or with one that is too long")
    content = part[len(head) + 4 :]
    name, is_file = _read_head(head, len(content))
    if is_file:
        return name, digest(content), True
    if len(content) > _MAX_TEXT:
        raise _unusable("a field of text is too long")
    try:
        return name, content.decode("utf-8"), False
    except UnicodeDecodeError:
        raise _unusable("a field of text is not UTF-8") from None


def _read_head(head: bytes, length: int) -> tuple[str, bool]:
    found: tuple[str, bool] | None = None
    for line in head.split(b"\r\n"):
        disposition, size = _DISPOSITION.fullmatch(line), _LENGTH.fullmatch(line)
        if disposition is not None and found is None:
            found = disposition[1].decode("ascii"), disposition[2] is not None
        elif size is not None:
            if int(size[1]) != length:
                raise _unusable("a part is not as long as it says")
        elif _OTHER.fullmatch(line) is None:
            raise _unusable("a header line of a part that is not read here")
    if found is None:
        raise _unusable("a part without a name")
    return found


def _add(fields: dict[str, Any], name: str, value: str, is_file: bool) -> None:  # noqa: FBT001
    if is_file != (name == "file"):
        raise _unusable("file is the one field that holds a file")
    if name.endswith("[]"):
        fields.setdefault(name, []).append(value)
    elif name in fields:
        raise _unusable("a field that comes twice")
    else:
        fields[name] = value


def _unusable(reason: str) -> RequestError:
    return RequestError(f"form: {reason}")
