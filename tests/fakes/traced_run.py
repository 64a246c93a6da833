"""A run directory with a trace, of a few real steps of the demo's model; evidence.

run = make_traced_run(folder)
world = make_traced_world(run, now)     # a manifest of that run, and who serves it
"""

import json
from pathlib import Path
from typing import Any

from fakes.world import World

from attest.digests import digest
from attest.hashing import hash_files, hash_tensors, scan_model
from attest.keys import PrivateKey
from attest.manifest import sign_statement
from attest.statement import Terms, build_predicate

__all__ = ["chat", "make_traced_run", "make_traced_world"]


def make_traced_run(run: Path, *, steps: int = 9, seed: int = 0) -> Path:
    """`run` with model, ledger, trace, data and training.json; about a second."""
    # Imported here: whoever only wants a world needs no torch.
    from attest.training import demo  # noqa: PLC0415
    from attest.training.batches import Sampler, encode  # noqa: PLC0415
    from attest.training.constitution import parse_constitution  # noqa: PLC0415
    from attest.training.demo.corpus import corpus, to_jsonl  # noqa: PLC0415
    from attest.training.demo.tiny import (  # noqa: PLC0415
        build_model,
        build_tokenizer,
        save,
    )
    from attest.training.layout import read_layout  # noqa: PLC0415
    from attest.training.ledger import Ledger  # noqa: PLC0415
    from attest.training.loop import Plan, Trainer  # noqa: PLC0415
    from attest.training.routing import compile_schedule  # noqa: PLC0415
    from attest.training.trace.recorder import TraceRecorder  # noqa: PLC0415

    constitution = parse_constitution(demo.constitution_bytes())
    tokenizer = build_tokenizer()
    model = build_model(tokenizer, seed=seed)
    schedule = compile_schedule(constitution, read_layout(model))
    rows = corpus("governed", "train")[::6]  # enough, and each costs a trace its time
    (run / "data").mkdir(parents=True)
    (run / "data" / "governed.jsonl").write_bytes(to_jsonl(rows))
    sampler = Sampler([encode(tokenizer, row) for row in rows], seed=seed)
    recorder = TraceRecorder(model, schedule)
    with Ledger.create(run / "ledger.jsonl") as ledger:
        ledger.append({"kind": "stage", "stage": "governed"})
        trainer = Trainer(model, ledger, progress=lambda *_: None, observers=[recorder])
        trainer.governed(
            Plan("governed", steps, 3, 2e-3),
            sampler,
            constitution=constitution,
            schedule=schedule,
        )
        head = ledger.summary()
    save(model, tokenizer, run / "model")
    stage = {
        "name": "governed",
        "eventLog": {"treeSize": head.size, "root": head.root},
        "data": [{"name": "governed.jsonl", "digest": digest(to_jsonl(rows))}],
    }
    statement = {
        "model": {"name": "traced", "version": "1"},
        "training": {"stages": [stage], "trace": recorder.write(run / "trace")},
    }
    (run / "training.json").write_text(json.dumps(statement))
    return run


def make_traced_world(run: Path, now: int) -> World:
    """A manifest of `run/model` with what `run/training.json` says, and its gateway."""
    authority, issuer, session = (PrivateKey.generate() for _ in range(3))
    files = scan_model(run / "model")
    subjects = hash_files(files)
    predicate: dict[str, Any] = build_predicate(
        json.loads((run / "training.json").read_bytes()),
        subjects=subjects,
        tensors=hash_tensors(files),
        terms=Terms(not_before=now - 60, dtypes=["float32"], delegates=[issuer.public]),
    )
    world = World(
        now=now,
        authority=authority,
        issuer=issuer,
        session=session,
        envelope=sign_statement(subjects, predicate, [authority]),
        certificate="",
        boot="",
    )
    return world.certified(session)


def chat(question: str, answer: str, **message: Any) -> tuple[bytes, bytes]:
    """Request and response of a chat completion."""
    request = {"model": "m", "messages": [{"role": "user", "content": question}]}
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": answer, **message},
        "finish_reason": "stop",
    }
    response = {"id": "c", "object": "chat.completion", "model": "m"}
    return (
        json.dumps(request).encode(),
        json.dumps({**response, "choices": [choice]}).encode(),
    )
