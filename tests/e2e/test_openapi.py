"""The OpenAPI document is true: what is drawn from it, right or wrong, is answered as it says."""

from collections import Counter
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.fixture(scope="module")
def document(server: Any) -> Any:
    """The served document."""
    return schemathesis.openapi.from_url(f"{server.url}/docs.json")


def ask(operation: Any, examples: int) -> Counter[int]:
    """Answers to requests drawn for an operation, all of them as documented."""
    statuses: Counter[int] = Counter()

    @seed(0)
    @settings(
        max_examples=examples, deadline=None, database=None, suppress_health_check=[*HealthCheck],
        phases=[Phase.generate],
    )  # fmt: skip
    @given(case=operation.as_strategy())
    def one(case: Any) -> None:
        answer = case.call()
        statuses[answer.status_code] += 1
        case.validate_response(answer, checks=CHECKS)

    one()
    return statuses


def test_predictions(model: str, document: Any) -> None:
    """Some of the requests for predictions are answered, and the others refused, in the documented form."""
    statuses = ask(document[f"/v1/models/{model}/predict"]["POST"], 60)
    assert statuses[422] > 10
    assert set(statuses) <= {200, 400, 415, 422}


def test_pages(document: Any) -> None:
    """Every page is there."""
    found = [result.ok() for result in document.get_all_operations()]
    pages = [operation for operation in found if operation.method.upper() == "GET"]
    assert len(pages) > 15
    for operation in pages:
        assert set(ask(operation, 3)) == {200}, operation.label


def test_a_lie_is_found(server: Any, document: Any) -> None:
    """Control: the same checks find a document that promises another answer."""
    path = "/v1/models/viewcount"
    promised = {"200": {"description": "a page", "content": {"text/html": {}}}}
    get = {**document.raw_schema["paths"][path]["get"], "responses": promised}
    lie = {**document.raw_schema, "paths": {path: {"get": get}}}
    liar = schemathesis.openapi.from_dict(lie)
    liar.config.update(base_url=server.url)
    with pytest.raises(FailureGroup):
        ask(liar[path]["GET"], 1)
