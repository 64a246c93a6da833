import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest
from fakes.gateway import running_gateway

from gateway.page import PAGE, PATH, content_policy

LOADS = {"src", "href", "action", "formaction", "data", "poster", "srcset"}


class Parsed(HTMLParser):
    """Elements with their attributes, and the content of scripts and styles."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.content, self._open = [], [], None
        self.feed(page.decode())
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._open = tag
            self.content.append([tag, ""])

    def handle_endtag(self, tag):
        self._open = None if tag == self._open else self._open

    def handle_data(self, data):
        if self._open:
            self.content[-1][1] += data


@pytest.fixture(scope="module")
def page():
    return PAGE.read_bytes()


@pytest.fixture(scope="module")
def parsed(page):
    return Parsed(page)


@pytest.fixture(scope="module")
def policy(page):
    directives = (part.split() for part in content_policy(page).split("; "))
    return {name: set(sources) for name, *sources in directives}


async def test_is_served_without_a_key(tmp_path, page):
    keys = [hashlib.sha256(b"k").digest()]
    async with running_gateway(tmp_path, api_keys=keys) as gateway:
        answer = await gateway.client.get(PATH)
    assert answer.status_code == 200
    assert answer.content == page
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["content-security-policy"] == content_policy(page)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"


def test_only_its_own_program_and_style_run(parsed, policy):
    found = {"script": set(), "style": set()}
    for tag, text in parsed.content:
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        found[tag].add(f"'sha256-{digest}'")
    assert policy["script-src"] == found["script"]
    assert policy["style-src"] == found["style"]
    assert [len(found[tag]) for tag in ("script", "style")] == [1, 1]


def test_all_else_is_forbidden(policy):
    assert policy["default-src"] == {"'none'"}
    assert policy["connect-src"] == {"'self'"}
    for name in ("base-uri", "form-action", "frame-ancestors", "trusted-types"):
        assert policy[name] == {"'none'"}
    assert policy["require-trusted-types-for"] == {"'script'"}
    assert "unsafe" not in str(policy)


def test_policy_comes_before_what_it_governs(parsed):
    tags = [tag for tag, _ in parsed.elements]
    at = next(
        n for n, (_, found) in enumerate(parsed.elements) if found.get("http-equiv")
    )
    assert parsed.elements[at][1]["http-equiv"] == "Content-Security-Policy"
    assert at < tags.index("style") < tags.index("script")


def test_nothing_is_loaded_and_nothing_runs_inline(parsed):
    for tag, found in parsed.elements:
        assert not LOADS & found.keys(), tag
        assert "style" not in found, tag
        assert not [name for name in found if name.startswith("on")], tag
    assert not {"link", "img", "iframe", "object", "embed", "base"} & {
        tag for tag, _ in parsed.elements
    }


def test_program_makes_no_markup_and_asks_nobody_but_the_gateway(parsed):
    script = next(text for tag, text in parsed.content if tag == "script")
    for word in (
        *("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write"),
        *("DOMParser", "eval(", "Function(", "XMLHttpRequest", "WebSocket"),
        *("EventSource", "sendBeacon", "importScripts", "localStorage", "cookie"),
    ):
        assert word not in script, word
    asked = re.findall(r"\bfetch\(([^)]*)", script)
    assert len(asked) == 1
    assert asked[0].startswith("`v1/attestations/${")


def test_page_can_be_read_by_everybody(parsed):
    elements = parsed.elements
    assert ("html", {"lang": "en"}) in elements
    assert [tag for tag, _ in elements].count("main") == 1
    labelled = {found["for"] for tag, found in elements if tag == "label"}
    fields = [found for tag, found in elements if tag in ("input", "textarea")]
    assert fields
    for field in fields:
        assert field["id"] in labelled or "aria-label" in field
    roles = {found.get("role") for _, found in elements}
    assert {"alert", "status"} <= roles


def test_page_without_a_policy_is_never_served():
    with pytest.raises(ValueError, match="no policy"):
        content_policy(b"<html>")
