"""A headless Chromium, driven over its DevTools protocol.

async with browser(folder) as page:
    await page.open(url)
    await page.until("document.title === 'x'")
    assert page.problems == []
"""

import asyncio
import json
import shutil
from contextlib import asynccontextmanager

import httpx2
import websockets

__all__ = ["CHROMIUM", "Page", "browser"]

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


class Page:
    """One page; `asked` has every URL that it fetched, `problems` what it logged."""

    def __init__(self, socket):
        self._socket, self._serial, self._waiting = socket, 0, {}
        self.asked, self.problems = [], []
        self._reader = asyncio.create_task(self._read())

    async def _read(self):
        async for text in self._socket:
            message = json.loads(text)
            if "id" in message:
                self._waiting.pop(message["id"]).set_result(message)
            elif message["method"] == "Network.requestWillBeSent":
                self.asked.append(message["params"]["request"]["url"])
            elif message["method"] in ("Log.entryAdded", "Runtime.exceptionThrown"):
                self.problems.append(json.dumps(message["params"]))

    async def send(self, method, **params):
        self._serial += 1
        reply = asyncio.get_running_loop().create_future()
        self._waiting[self._serial] = reply
        call = {"id": self._serial, "method": method, "params": params}
        await self._socket.send(json.dumps(call))
        message = await asyncio.wait_for(reply, 20)
        assert "error" not in message, message
        return message["result"]

    async def open(self, url):
        for domain in ("Page", "Network", "Log", "Runtime", "DOM"):
            await self.send(f"{domain}.enable")
        await self.send("Page.navigate", url=url)

    async def value(self, expression):
        found = await self.send(
            "Runtime.evaluate", expression=expression, returnByValue=True
        )
        return found["result"].get("value")

    async def until(self, expression):
        """Wait until it is true."""
        async with asyncio.timeout(20):
            while not await self.value(expression):  # noqa: ASYNC110  # another process
                await asyncio.sleep(0.05)

    async def choose(self, selector, path):
        """Choose a file, as a person would."""
        root = (await self.send("DOM.getDocument"))["root"]["nodeId"]
        node = await self.send("DOM.querySelector", nodeId=root, selector=selector)
        await self.send("DOM.setFileInputFiles", files=[str(path)], **node)

    def close(self):
        self._reader.cancel()


@asynccontextmanager
async def browser(folder):
    """A browser with a profile of its own in `folder`."""
    process = await asyncio.create_subprocess_exec(
        CHROMIUM,
        *("--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0"),
        f"--user-data-dir={folder}",
        "about:blank",
        stderr=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
    )
    try:
        port = folder / "DevToolsActivePort"
        async with asyncio.timeout(30):
            while not port.exists() or "\n" not in port.read_text():  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        base = f"http://127.0.0.1:{port.read_text().split()[0]}"
        async with httpx2.AsyncClient(trust_env=False) as client:
            targets = (await client.get(f"{base}/json/list")).json()
        url = next(t["webSocketDebuggerUrl"] for t in targets if t["type"] == "page")
        async with websockets.connect(url, max_size=None, proxy=None) as socket:
            page = Page(socket)
            try:
                yield page
            finally:
                page.close()
    finally:
        process.terminate()
        await process.wait()
