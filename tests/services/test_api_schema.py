"""The API does what its own OpenAPI document says, to whoever reads it in every possible way.

``RECSYS_TEST_API=full`` (``make test-api``) asks many times more, other things each time.
"""

import os
from collections.abc import Iterator
from typing import Any

import pytest
import redis
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks

from recsys_assets.local.redis import RedisServer
from serving.contract import Family, Pairing
from tests.published import Publisher
from tests.serving_processes import running

FULL = os.environ.get("RECSYS_TEST_API") == "full"
# But for positive_data_acceptance, since no JSON schema can say which characters are printable, and
# for negative_data_rejection, since a single value in a query is a list of one, whatever it is.
CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
    checks.unsupported_method,
]


@pytest.fixture(scope="module")
def document(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The document of an API that runs over a Redis with published lists of every kind."""
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
        publisher = Publisher(client)
        publisher.top_buys(None, 1, 2, 3, pinned=[1])
        publisher.top_buys(1, 5, "text", 7)
        publisher.bought_together(1, 2, 3)
        publisher.also(1, 2, Pairing(3, 2.0))
        for family in Family:
            publisher.record(family)
    with running(redis_server.url, tmp_path_factory.mktemp("serving")) as (http, _):
        yield schemathesis.openapi.from_url(f"{http.base_url}/schema/openapi.json")


USUAL = settings(
    max_examples=1000 if FULL else 25,
    derandomize=not FULL,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.parametrize("mode", GenerationMode)
def test_it_does_what_it_documents(document: Any, mode: GenerationMode):
    operations = [result.ok() for result in document.get_all_operations()]
    assert len(operations) >= 8
    for operation in operations:
        if mode is GenerationMode.POSITIVE or list(operation.iter_parameters()):
            assert_done(operation.as_strategy(generation_mode=mode))


def assert_done(cases: st.SearchStrategy[schemathesis.Case]) -> None:
    @USUAL
    @given(case=cases)
    def done(case: schemathesis.Case) -> None:
        case.call_and_validate(checks=CHECKS)

    done()
