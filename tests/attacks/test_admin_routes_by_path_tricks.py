"""A client tries to reach the engine's own controls through the gateway."""

import json

import pytest
from fakes.upstream import json_answer

ADMIN = (
    "/collective_rpc",
    "/inference/v1/generate",
    "/invocations",
    "/pause",
    "/resume",
    "/sleep",
    "/update_weights",
    "/v1/load_lora_adapter",
    "/v1/unload_lora_adapter",
    "/wake_up",
    "/weight_checker",
)
TRICKS = (
    "/{0}",
    "//{0}",
    "/./{0}",
    "/v1/../{0}",
    "/v1/%2e%2e/{0}",
    "/v1/..%2f{0}",
    "/v1/..;/{0}",
    "/v1/chat/completions/../../../{0}",
    "/v1/chat/completions/..%2F..%2F..%2F{0}",
    "/v1/chat/completions;/{0}",
    "/%2F{0}",
    "/%252F{0}",
    "/{0}/",
    "/{0};a=b",
    "/{0}%00",
    "/{0}%20",
    "/{0}.",
    "/{0}%0a",
    "/\\{0}",
    "/%5C{0}",
    "/{0}?x=/v1/models",
    "/v1/models/%2e%2e/%2e%2e/{0}",
    "http://engine/{0}",
)


def encoded(path):
    """The path with each letter of its last segment percent-encoded."""
    head, _, last = path.rpartition("/")
    return head + "/" + "".join(f"%{ord(letter):02x}" for letter in last)


async def send(gateway, target, method="POST"):
    received = await gateway.raw(
        f"{method} {target} HTTP/1.1\r\nhost: engine\r\nconnection: close\r\n"
        "content-type: application/json\r\ncontent-length: 2\r\n\r\n{}".encode()
    )
    head, _, body = received.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), body


@pytest.mark.parametrize("path", ADMIN)
async def test_denied_by_name(gateway, path):
    gateway.engine.answer(json_answer(b"{}"))
    for method in ("POST", "GET", "PUT", "PATCH", "DELETE"):
        status, body = await send(gateway, path, method)
        assert status == 403
        error = json.loads(body)["error"]
        assert error["type"] == "permission_error"
        assert "bypass the verified weights" in error["message"]
    assert gateway.engine.requests == []


@pytest.mark.parametrize("trick", TRICKS)
async def test_tricks_never_reach_the_engine(gateway, trick):
    gateway.engine.answer(json_answer(b"{}"))
    for path in ("/sleep", "/v1/load_lora_adapter"):
        for form in (path, path.upper(), path.title(), encoded(path)):
            status, _ = await send(gateway, trick.format(form.lstrip("/")))
            assert status in (400, 403)
    assert gateway.engine.requests == []


@pytest.mark.parametrize(
    "target",
    [
        "//v1/chat/completions",
        "/v1//chat/completions",
        "/v1/chat/completions/",
        "/v1/chat/completions//",
        "/v1/chat%2Fcompletions",
        "/v1/chat/%63ompletions",
        "/V1/chat/completions",
        "/v1/chat/completions;x",
        "/v1/./chat/completions",
        "/v1/x/../chat/completions",
        "/v1/models/../chat/completions",
        "/v1/chat/completions%00",
        "/v1/chat/completions%20",
    ],
)
async def test_only_the_plain_spelling_is_served(gateway, target):
    gateway.engine.answer(json_answer(b"{}"))
    status, _ = await send(gateway, target)
    assert status == 404
    assert gateway.engine.requests == []


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/v1",
        "/docs",
        "/metrics/x",
        "/health",
        "/score",
        "/v2/embed",
        "/v1/responses/resp_1",
        "/v1/responses/resp_1/cancel",
        "/v1/responses/render",
        "/v1/chat/completions/batch",
        "/v1/realtime",
        "/v1/models/tiny",
        "/%F0%9F%92%A9",
        "/" + "a/" * 900,
    ],
)
async def test_all_else_is_not_served(gateway, target):
    gateway.engine.answer(json_answer(b"{}"))
    for method in ("GET", "POST"):
        status, body = await send(gateway, target, method)
        assert status == 404
        assert json.loads(body)["error"]["type"] == "not_found_error"
    assert gateway.engine.requests == []


async def test_request_in_the_body_of_another(gateway):
    """Content-Length and Transfer-Encoding at once: two readers, two requests."""
    gateway.engine.answer(json_answer(b"{}"))
    inner = b"POST /sleep HTTP/1.1\r\nhost: engine\r\ncontent-length: 0\r\n\r\n"
    await gateway.raw(
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
        b"content-type: application/json\r\ntransfer-encoding: chunked\r\n"
        + f"content-length: {5 + len(inner)}\r\n\r\n0\r\n\r\n".encode()
        + inner
    )
    assert all(r.path == "/v1/chat/completions" for r in gateway.engine.requests)
    assert gateway.engine.requests == []


async def test_websocket_is_not_opened(gateway):
    received = await gateway.raw(
        b"GET /v1/realtime HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\n"
        b"upgrade: websocket\r\nsec-websocket-version: 13\r\n"
        b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    assert received.startswith(b"HTTP/1.1 403 ")
