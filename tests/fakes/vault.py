"""The two routes of Vault's transit engine that a signer uses, over real HTTP.

Vault itself can't be had from a package registry. The answers follow its API
documentation (transit/keys/:name, transit/sign/:name); the cryptography is real.
"""

import base64
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from attest.keys import Algorithm, b64url_encode

__all__ = ["Vault", "running_vault"]

TOKEN = "s.test"


class Vault:
    """Keys by name, each a list of versions; the last one is the latest."""

    def __init__(self):
        self.keys = {}
        self.sealed = False
        self.requests = []

    def read(self, name):
        versions = self.keys[name]
        return {
            "latest_version": len(versions),
            "keys": {
                str(number + 1): {"public_key": _public(key)}
                for number, key in enumerate(versions)
            },
        }

    def sign(self, name, body):
        version = body.get("key_version") or len(self.keys[name])
        key = self.keys[name][version - 1]
        signature = key.sign(base64.b64decode(body["input"]))
        if key.public.alg is Algorithm.ES256:
            assert body["marshaling_algorithm"] == "jws"
            assert body["hash_algorithm"] == "sha2-256"
            text = b64url_encode(signature)
        else:
            text = base64.b64encode(signature).decode()
        return {"signature": f"vault:v{version}:{text}"}


def _public(key):
    if key.public.alg is Algorithm.ES256:
        return key.public.pem.decode()
    raw = key.public.jwk["x"] + "="
    return base64.b64encode(base64.urlsafe_b64decode(raw)).decode()


@contextmanager
def running_vault():
    """A vault on loopback; yields it with its `url`."""
    vault = Vault()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.answer(lambda name, _: vault.read(name))

        def do_POST(self):
            self.answer(vault.sign)

        do_PUT = do_POST  # noqa: N815

        def answer(self, work):
            length = int(self.headers.get("content-length", 0))
            body = json.loads(self.rfile.read(length) or b"{}")
            vault.requests.append(self.path)
            kind, name = self.path.removeprefix("/v1/transit/").split("/")
            if vault.sealed:
                return self.send(503, {"errors": ["Vault is sealed"]})
            if self.headers.get("x-vault-token") != TOKEN:
                return self.send(403, {"errors": ["permission denied"]})
            if name not in vault.keys or kind not in {"keys", "sign"}:
                return self.send(404, {"errors": []})
            return self.send(200, {"data": work(name, body)})

        def send(self, status, value):
            data = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(data)))
            self.send_header("content-type", "application/json")
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        vault.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield vault
        finally:
            server.shutdown()
            thread.join()
