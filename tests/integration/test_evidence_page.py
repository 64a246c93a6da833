"""The evidence page in a real browser, under its own policy."""

import json
import shutil
from pathlib import Path

import pytest
from fakes.browser import CHROMIUM, browser
from fakes.gateway import chat_body, running_gateway
from fakes.upstream import json_answer
from fakes.world import ANSWER, make_world

from gateway.page import PAGE, PATH

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")

COMPAT = Path(__file__).parents[1] / "compat" / "v0.1.0"
HEADLINE = "document.querySelector('.verdict h2')?.textContent"


def typed(key):
    return (
        f"key.value = {json.dumps(key)};"
        "key.dispatchEvent(new Event('input', {bubbles: true}))"
    )


async def test_page_from_a_disk_proves_a_bundle(tmp_path):
    page_file = shutil.copy(PAGE, tmp_path)
    async with browser(tmp_path / "profile") as page:
        await page.open(f"file://{page_file}")
        await page.until("document.readyState === 'complete'")
        await page.choose("#evidence-file", COMPAT / "answer.bundle.json")
        await page.value(typed((COMPAT / "authority.pub.pem").read_text()))
        await page.until(f"{HEADLINE} === 'Proven, to tier T1'")
        assert page.asked == [f"file://{page_file}"]
        assert page.problems == []


async def test_page_of_a_gateway_asks_its_own_origin_alone(tmp_path):
    # The clock of the browser is the machine's; a world of the year 2027 has no past.
    async with running_gateway(tmp_path, world=make_world()) as gateway:
        gateway.engine.answer(json_answer(ANSWER))
        name = (await gateway.chat(chat_body())).headers["attestation-id"]
        origin = f"http://127.0.0.1:{gateway.port}"
        async with browser(tmp_path / "profile") as page:
            await page.open(f"{origin}{PATH}#{name}")
            await page.until("document.readyState === 'complete'")
            await page.value(typed(json.dumps(gateway.world.authority.public.jwk)))
            await page.until(f"Boolean({HEADLINE})")
            steps = await page.value(
                "[...document.querySelectorAll('.step .status')]"
                ".map(item => item.textContent).join()"
            )
            assert steps.startswith("ok,ok,ok,ok,ok,ok,not checked,")
            assert page.asked == [f"{origin}{PATH}", f"{origin}/v1/attestations/{name}"]
            assert page.problems == []


async def test_what_the_policy_forbids_does_not_happen(tmp_path):
    async with running_gateway(tmp_path) as gateway, browser(tmp_path / "b") as page:
        await page.open(f"http://127.0.0.1:{gateway.port}{PATH}")
        await page.until("document.readyState === 'complete'")
        for attempt in (
            "document.body.innerHTML = '<b>x</b>'",
            "document.createElement('script').text = 'alert(1)'",
            "document.body.insertAdjacentHTML('beforeend', '<b>x</b>')",
        ):
            found = await page.value(f"try {{ {attempt}; 'done' }} catch {{ 'no' }}")
            assert found == "no", attempt
        away = "fetch('https://example.test/').then(() => 'done', () => 'no')"
        found = await page.send(
            "Runtime.evaluate", expression=away, awaitPromise=True, returnByValue=True
        )
        assert found["result"]["value"] == "no"
        assert any("Content Security Policy" in problem for problem in page.problems)
