"""A run directory opened for tracing."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from attest.canonical import read_object
from attest.errors import ConfigurationError
from attest.training.batches import Example, encode
from attest.training.trace.exchange import Exchange
from attest.training.trace.provenance import stated_data
from attest.training.trace.record import Record
from attest.training.trace.score import Tracer, ledger_events
from attest.training.trace.values import Trace
from attest.training.weights import load_model

__all__ = ["RunTracer"]

# Larger data files stay unread: events are then ranked by their sketches alone.
_MAX_DATA_BYTES = 256 * 1024 * 1024
_MAX_STATEMENT_BYTES = 64 * 1024 * 1024
_SMALL = 10_000_000


@dataclass(frozen=True, slots=True)
class _Row:
    """A line of a data file."""

    id: str
    principle: str
    answer: str
    question: str
    system: str

    def messages(self) -> list[dict[str, str]]:
        system = [{"role": "system", "content": self.system}] if self.system else []
        return [*system, {"role": "user", "content": self.question}]


class RunTracer:
    """Traces answers of the model that a run made.

    Reads `trace/`, `ledger.jsonl`, `model/` and, where they are there, the rows of the
    recorded stages in `data/`: JSONL with `id`, `principle`, `question`, `answer` and
    perhaps `system`. The model is loaded on the CPU, in float32.

    Args:
        run: the run's directory.
        model: the model directory, where it is not `run/model`.
        statement: what says which stage was trained on which files, such as a signed
            predicate; without it `training.json`, and without that `STAGE.jsonl`.

    Raises:
        ConfigurationError: the trace is missing or not of this ledger.
        LedgerError: the ledger cannot be read.
        TrainingError: no model of the expected tensors.
        FormatError: the statement is no JSON object, or names no plain file.
    """

    def __init__(
        self,
        run: Path,
        *,
        model: Path | None = None,
        statement: Mapping[str, Any] | None = None,
    ) -> None:
        directory = model or run / "model"
        record = Record.read(run / "trace")
        events = ledger_events(run / "ledger.jsonl")
        loaded = load_model(directory).float().eval()
        known = dict(loaded.named_parameters())
        strange = [name for track in record.tracks.values() for name in track.names]
        if unknown := sorted(set(strange) - known.keys()):
            raise ConfigurationError(
                f"{directory}: expected the tensor {unknown[0]}, which the trace is of",
                hint="give the model that this run made",
            )
        self._size = sum(tensor.numel() for tensor in known.values())
        self._tokenizer = AutoTokenizer.from_pretrained(directory)
        stages = {str(event.get("stage")) for event in events}
        self._rows = _rows(
            run, stages, _statement(run) if statement is None else statement
        )
        self._tracer = Tracer(loaded, record, events, rows=self._row)

    def trace(self, exchange: Exchange, *, top: int = 10) -> Trace:
        """Trace one answer.

        The text is tokenized anew, the prompt by the tokenizer's chat template: an
        engine that sampled other tokens for the same text, or used another template,
        gave the answer another likelihood.

        Raises:
            ConfigurationError: nothing was answered.
        """
        tokenizer = self._tokenizer
        prompt = exchange.prompt
        if exchange.messages is not None:
            prompt = tokenizer.apply_chat_template(
                exchange.messages, tokenize=False, add_generation_prompt=True
            )
        ids = [
            tokenizer(text or "", add_special_tokens=False)["input_ids"]
            for text in (prompt, exchange.answer)
        ]
        if exchange.ended:
            ids[1] = [*ids[1], tokenizer.eos_token_id]
        if not ids[0] or not ids[1]:
            raise ConfigurationError("trace: expected a prompt and an answer")
        example = Example("", "", tuple(ids[0]), tuple(ids[1]))
        with _threads_for(self._size):
            return self._tracer.trace(example, top=top)

    def _row(self, sample: str) -> Example | None:
        row = self._rows.get(sample)
        return None if row is None else encode(self._tokenizer, row)


def _rows(run: Path, stages: set[str], statement: Mapping[str, Any]) -> dict[str, _Row]:
    rows: dict[str, _Row] = {}
    for stage in sorted(stages):
        names = [item.name for item in stated_data(statement, stage)]
        for name in names or [f"{stage}.jsonl"]:
            path = run / "data" / name
            if path.is_file() and path.stat().st_size <= _MAX_DATA_BYTES:
                rows |= {row.id: row for row in map(_row, _lines(path)) if row}
    return rows


def _statement(run: Path) -> dict[str, Any]:
    try:
        data = (run / "training.json").read_bytes()
    except OSError:
        return {}
    return read_object(data, max_bytes=_MAX_STATEMENT_BYTES)


def _lines(path: Path) -> list[Any]:
    try:
        return [json.loads(line) for line in path.read_bytes().splitlines() if line]
    except ValueError as error:
        raise ConfigurationError(
            f"{path}: expected JSON lines", hint="restore the run's data files"
        ) from error


def _row(document: Any) -> _Row | None:
    """A row that a trace can use, None for one of another form."""
    match document:
        case {
            "id": str(sample),
            "principle": str(principle),
            "question": str(question),
            "answer": str(answer),
        }:
            system = document.get("system")
            system = system if isinstance(system, str) else ""
            return _Row(sample, principle, answer, question, system)
    return None


@contextmanager
def _threads_for(size: int) -> Iterator[None]:
    """One thread for a small model: several would spend their time waiting."""
    threads = torch.get_num_threads()
    if size < _SMALL:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
