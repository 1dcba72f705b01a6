"""The OpenAPI document is true: whatever it allows or forbids, no call ends in a 5xx or in what it does not name."""

from collections.abc import Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, Verbosity, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, CheckContext, Response
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    positive_data_acceptance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from service.api.schemas.requests import MAX_N
from service.auth.request_cost import MOST_EXPLAINED, MOST_ITEMS
from tests.service.auth.test_doors import Guarded
from tests.service.servers import ServiceProcess

pytestmark = pytest.mark.slow

AnyCase = Case[APIOperation[Any, Any, Any, Any]]


@schemathesis.check
def what_the_schema_allows_is_taken(ctx: CheckContext, response: Response, case: AnyCase) -> bool | None:
    """But for conditions, fields of a placement that must fit each other, and products of two fields: users × n, and
    what is explained of candidates."""
    body: Any = case.body
    if isinstance(body, dict) and isinstance(body.get("placement"), dict):
        body = body["placement"]  # of a preview
    if response.status_code == 422 and response.json()["code"] == "condition.invalid":
        # No schema describes their language.
        assert {"filter", "rules"} & body.keys() if isinstance(body, dict) else "filter" in (case.query or {})
        return None
    if response.status_code == 422 and isinstance(body, dict) and "kind" in body:
        kinds = [str(kind) for kind in (body["kind"], *(body.get("fallbacks") or ()))]
        least, most = body.get("min_price"), body.get("max_price")
        crossed = least is not None and most is not None and least > most
        if len(kinds) > len(set(kinds)) or body.get("rules") or crossed:
            return None
    if response.status_code == 422 and response.json()["code"] == "request.too_much" and isinstance(body, dict):
        lists, n = len(body.get("users", [0])), body.get("n") or len(body.get("candidates", [])) or 10
        most = MOST_EXPLAINED if body.get("explain") else MOST_ITEMS
        assert lists * n > most or ("candidates" in body and body["explain"] and n > MAX_N)
        return None
    return positive_data_acceptance(ctx, response, case)


CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    what_the_schema_allows_is_taken,
]

schemathesis.serializer.alias("application/x-ndjson", "text/plain")


@pytest.fixture(scope="module")
def service(tiny_release: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    process = Guarded(tiny_release, tmp_path_factory.mktemp("schema"), ISRF_RATE_LIMIT="")
    yield process.start()
    process.kill()


def test_no_call_is_answered_otherwise_than_documented(service: Guarded) -> None:
    headers = {"X-API-Key": service.keys["admin"]}
    schema = schemathesis.openapi.from_url(f"{service.url}/openapi.json", headers=headers)
    tried = []
    for result in schema.get_all_operations():
        operation = result.ok() if isinstance(result, Ok) else pytest.fail(str(result.err()))
        tried.append(operation.label)
        for mode in schemathesis.GenerationMode:
            strategy = operation.as_strategy(generation_mode=mode)

            @settings(
                max_examples=25,
                derandomize=True,
                database=None,
                deadline=None,
                phases=[Phase.generate],
                verbosity=Verbosity.quiet,
                suppress_health_check=list(HealthCheck),
            )
            @given(case=strategy)
            def ask(case: AnyCase) -> None:
                case.call_and_validate(base_url=service.url, headers=headers, checks=CHECKS)

            # What takes nothing cannot be asked wrongly.
            with suppress(Unsatisfiable) if mode.is_negative else nullcontext():
                ask()
    assert {"GET /recommend/{user_id}", "POST /interactions", "GET /metrics"} <= set(tried)
