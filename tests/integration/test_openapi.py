"""The OpenAPI document against the running gateway: every route does what it says.

Requests are made up by schemathesis, valid ones and broken ones. Whatever it sends, the
answer has a documented status, the documented form, and no answer is an accident (500).
"""

import asyncio
import threading

import pytest
import schemathesis
from fakes.gateway import running_gateway
from fakes.upstream import json_answer
from fakes.world import ANSWER
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from gateway.endpoints import ENDPOINTS
from gateway.openapi import document

# What a fake engine of one answer makes of other dialects is its own business.
_CHECKS = (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)
schema = schemathesis.openapi.from_dict(document())


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    """A gateway in a thread, with an engine that has one answer to everything."""
    loop, ready = asyncio.new_event_loop(), threading.Event()
    found = {}

    async def serve():
        async with running_gateway(tmp_path_factory.mktemp("gateway")) as gateway:
            gateway.engine.answer(json_answer(ANSWER))
            found["url"], found["stop"] = (
                f"http://127.0.0.1:{gateway.port}",
                asyncio.Event(),
            )
            ready.set()
            await found["stop"].wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert ready.wait(10)
    yield found["url"]
    loop.call_soon_threadsafe(found["stop"].set)
    thread.join()
    loop.close()


@schema.parametrize()
@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
)
def test_every_route_answers_as_documented(case, url):
    response = case.call(base_url=url)
    case.validate_response(response, checks=_CHECKS)
    if response.status_code >= 500:
        # 502 and 504 tell of the engine, 503 of a gateway that is not ready.
        assert response.status_code in {502, 503, 504}


def test_document_has_every_row_of_the_route_table():
    paths = document()["paths"]
    for endpoint in ENDPOINTS:
        assert endpoint.method.lower() in paths[endpoint.path]
