"""Asks witnesses to cosign a checkpoint (C2SP tlog-witness, add-checkpoint).

A witness that is down, slow or refuses costs a cosignature, never an answer.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from attest.errors import AttestError, FormatError, VerificationError
from attest.log.checkpoint import Checkpoint, cosignatures
from attest.log.note import Note, NoteKey, Signature, parse_signatures
from attest.log.witness import format_submission
from gateway.http import httpx

__all__ = ["WitnessClient", "WitnessError"]

_TIMEOUT_SECONDS = 5.0
_MAX_ANSWER = 16 * 1024

Prove = Callable[[int, int], Awaitable[list[bytes]]]
"""Gives the consistency proof between two sizes of the tree."""


class WitnessError(AttestError):
    """A witness did not cosign; the message says what it answered."""

    code = "witness"


@dataclass(slots=True)
class WitnessClient:
    """One witness.

    Attributes:
        url: its submission prefix.
        key: what its cosignatures are verified with.
        seen: size of the tree that it cosigned last, as far as is known here.
    """

    url: str
    key: NoteKey
    seen: int = field(default=0, init=False)

    async def cosign(
        self, client: httpx.AsyncClient, head: Checkpoint, note: Note, prove: Prove
    ) -> Signature:
        """A verified cosignature on a checkpoint.

        Raises:
            WitnessError: it can't be reached, refuses, or answers something else.
        """
        try:
            answer = await self._ask(client, head, note, prove)
            if answer.status_code == 409:
                self.seen = self._size(answer, head)
                answer = await self._ask(client, head, note, prove)
            if answer.status_code != 200:
                raise WitnessError(f"status {answer.status_code}")
            line = self._verified(note, answer.content)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise WitnessError(type(error).__name__) from error
        except (FormatError, VerificationError) as error:
            raise WitnessError(str(error)) from error
        self.seen = head.size
        return line

    async def _ask(
        self, client: httpx.AsyncClient, head: Checkpoint, note: Note, prove: Prove
    ) -> httpx.Response:
        old_size = min(self.seen, head.size)
        body = format_submission(old_size, await prove(old_size, head.size), note)
        request = client.build_request(
            "POST",
            self.url.rstrip("/") + "/add-checkpoint",
            content=body,
            timeout=_TIMEOUT_SECONDS,
        )
        response = await client.send(request, stream=True)
        try:
            content = b""
            async for chunk in response.aiter_bytes():
                content += chunk
                if len(content) > _MAX_ANSWER:
                    raise WitnessError("its answer is too long")
        finally:
            await response.aclose()
        return httpx.Response(
            response.status_code, headers=response.headers, content=content
        )

    @staticmethod
    def _size(answer: httpx.Response, head: Checkpoint) -> int:
        text = answer.text.removesuffix("\n")
        if not (text.isascii() and text.isdigit() and len(text) < 20):
            raise WitnessError("status 409 without the size that it knows")
        if int(text) > head.size:
            raise WitnessError(f"it has seen {text} entries, we have {head.size}")
        return int(text)

    def _verified(self, note: Note, content: bytes) -> Signature:
        lines = tuple(line for line in parse_signatures(content) if self.key.made(line))
        if not cosignatures(Note(note.text, lines), [self.key]):
            raise WitnessError("its answer holds no cosignature of its key")
        return lines[0]
