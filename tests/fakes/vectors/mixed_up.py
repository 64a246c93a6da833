"""Evidence that does not belong together, and requests that were changed."""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from fakes.vectors.damage import Exchange, compact, recorded
from fakes.vectors.exchanges import CHAT, USER
from fakes.vectors.signed import (
    PROVEN,
    SIBLING,
    STRANGER,
    WORLD,
    Expected,
    case,
    failed_at,
    false,
    harmless,
    key,
    token,
)

from attest import tokens

__all__ = ["mixed_up"]


def mixed_up(exchange: Exchange) -> Iterator[dict[str, Any]]:
    """The cases, about a plain chat."""
    other = replace(
        exchange,
        name="other",
        request={**CHAT, "messages": USER},
        response=recorded("chat_request_id"),
    )
    bundle, request = exchange.bundle(), exchange.request
    sibling = {
        "keyCertificates": [SIBLING.certificate],
        "bootRecord": SIBLING.boot,
        "manifest": json.loads(SIBLING.envelope),
    }
    hidden = token(
        exchange.name,
        bundle.request or b"",
        exchange.response,
        exchange.dialect,
        hidden="out",
    )
    spelt = compact(json.loads(exchange.response), sort_keys=True)
    lied = exchange.response.replace(b"tiny", b"huge")
    yield case("keys of another replica", sibling, failed_at("key", "uncertified"))
    yield case(
        "boot record of another replica",
        {
            "keyCertificates": [WORLD.certificate, SIBLING.certificate],
            "bootRecord": SIBLING.boot,
        },
        failed_at("boot", "other_replica"),
    )
    yield case(
        "boot record of a stranger",
        {"bootRecord": tokens.mint("eat+jwt", {}, key("nobody"))},
        failed_at("boot", "signature"),
    )
    yield case(
        "token of another answer",
        {"token": other.token()},
        false("other_response", "answer_changed", "usage_changed", "request_changed"),
    )
    yield case(
        "manifest of another authority",
        {"manifest": json.loads(STRANGER.envelope)},
        failed_at("manifest", "signature"),
    )
    yield case(
        "texts not disclosed, keys sorted",
        {"token": hidden, "response": spelt},
        false("not_disclosed"),
    )
    yield case(
        "texts not disclosed, pretty-printed",
        {
            "token": hidden,
            "response": json.dumps(json.loads(exchange.response)).encode(),
        },
        harmless("whitespace", "escapes"),
    )
    yield case(
        "texts not disclosed, model changed",
        {"token": hidden, "response": lied},
        false("model_changed"),
    )
    for name, body, expected in (
        (
            "request pretty-printed",
            json.dumps(request, indent=2).encode(),
            "request_form",
        ),
        ("request with sorted keys", compact(request, sort_keys=True), "request_form"),
        ("request with a newline", compact(request) + b"\n", "request_form"),
    ):
        yield case(name, {"request": body}, harmless(expected))
    for name, change in (
        ("question changed", {"messages": [*USER, *USER]}),
        ("sampling changed", {"max_tokens": 9}),
        ("model asked for changed", {"model": "huge"}),
    ):
        changed = compact({**request, **change})
        yield case(name, {"request": changed}, false("request_changed"))
    yield case(
        "request not disclosed",
        {"token": exchange.token().partition("~")[0]},
        Expected("unknown", ("content.request_not_disclosed",)),
    )
    yield case("neither body", {"request": None, "response": None}, PROVEN)
