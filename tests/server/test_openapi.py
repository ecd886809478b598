"""`/openapi.json`: valid OpenAPI 3.1, and true: what it says of a row is what the front does."""

from __future__ import annotations

from typing import Any
from unittest.mock import MagicMock

import msgspec
import pytest
from openapi_spec_validator import validate
from tests.server.front_kit import Table, open_front, request
from trio.testing import MockClock

from secureconnect.errors import CODES
from secureconnect.server import polling
from secureconnect.server.endpoints import Context, Document, Endpoint
from secureconnect.server.openapi import document
from secureconnect.server.routes import auth, conversations, messages
from secureconnect.server.routes.system import endpoints as system_endpoints


class Health:
    """A node in the state a test wants."""

    def __init__(self, status: int = 200) -> None:
        self.status = status

    def live(self) -> tuple[int, dict[str, object]]:
        return 200, {"status": "alive"}

    def ready(self) -> tuple[int, dict[str, object]]:
        return self.status, {"status": "draining" if self.status == 503 else "ready"}

    def graph(self) -> tuple[int, dict[str, object]]:
        return self.status, {"status": "healthy"}

    def summary(self) -> tuple[int, dict[str, object]]:
        return self.status, {"status": "healthy", "service": "secureconnect"}

    def metrics(self) -> bytes:
        return b"figure 1\n"


def described(rows: list[Endpoint]) -> Any:  # noqa: ANN401  # a JSON document
    return msgspec.json.decode(document(rows))


DEMO = described(Table().rows())


def test_the_document_is_valid_openapi() -> None:
    validate(DEMO)
    validate(described(system_endpoints(Health(), list)))
    validate(described([]))


def test_the_whole_real_table_is_valid_openapi() -> None:
    """Its services are not called here, so there are none."""
    nobody = MagicMock()
    rows = [
        *auth.endpoints(nobody), *conversations.endpoints(nobody), *messages.endpoints(nobody),
        *polling.endpoints(nobody), *system_endpoints(Health(), list),
    ]  # fmt: skip
    made = described(rows)
    validate(made)
    assert len([1 for methods in made["paths"].values() for _ in methods]) == sum(1 + len(row.also) for row in rows)


def test_every_row_is_there_once_under_its_name_which_sockets_know() -> None:
    operations = [operation for methods in DEMO["paths"].values() for operation in methods.values()]
    ids = [operation["operationId"] for operation in operations if "operationId" in operation]
    assert sorted(ids) == sorted(row.name for row in Table().rows())
    assert all("operationId" in operation or operation["deprecated"] for operation in operations)


def test_what_a_service_refuses_with_is_among_the_answers() -> None:
    nobody = MagicMock()
    register, *_ = described(auth.endpoints(nobody))["paths"]["/v1/auth/register"].values()
    assert register["responses"]["409"]["description"] == "email already registered"
    assert "409" not in DEMO["paths"]["/v1/echo"]["post"]["responses"]


def test_health_says_what_it_answers() -> None:
    paths = described(system_endpoints(Health(), list))["paths"]
    ready = paths["/readyz"]["get"]["responses"]
    assert ready["200"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/StatusObject"}
    assert "503" in ready
    assert list(paths["/metrics"]["get"]["responses"]["200"]["content"]) == ["text/plain"]


def test_params_are_split_as_the_front_reads_them() -> None:
    get = DEMO["paths"]["/v1/things/{id}"]["get"]
    assert {(p["name"], p["in"], p["required"]) for p in get["parameters"]} == {
        ("id", "path", True), ("text", "query", False), ("limit", "query", False), ("tags", "query", False),
        ("key", "query", False),
    }  # fmt: skip
    assert "requestBody" not in get
    change = DEMO["paths"]["/v1/things/{id}"]["patch"]
    assert [(p["name"], p["in"]) for p in change["parameters"]] == [("id", "path"), ("idempotency-key", "header")]
    body = change["requestBody"]["content"]["application/json"]["schema"]
    assert (set(body["properties"]), change["requestBody"]["required"]) == ({"text", "limit", "tags", "key"}, False)
    echo = DEMO["paths"]["/v1/echo"]["post"]["requestBody"]
    assert (echo["required"], echo["content"]["application/json"]["schema"]["required"]) == (True, ["text"])


def test_answers_stand_in_the_envelope_with_their_refusals() -> None:
    responses = DEMO["paths"]["/v1/things"]["post"]["responses"]
    schema = responses["201"]["content"]["application/json"]["schema"]
    assert (schema["required"], schema["properties"]["data"]) == (
        ["success", "meta", "data"], {"$ref": "#/components/schemas/EchoParams"},
    )  # fmt: skip
    failure = DEMO["components"]["schemas"]["Failure"]["properties"]
    assert failure["error"] == {"$ref": "#/components/schemas/Error"}
    assert {"400", "413", "429", "500", "503", "504"} <= set(responses)
    assert DEMO["x-error-codes"] == CODES


def test_security_is_said_where_a_token_is_needed() -> None:
    assert DEMO["paths"]["/v1/things/{id}"]["get"]["security"] == [{"bearer": []}]
    assert "401" in DEMO["paths"]["/v1/things/{id}"]["get"]["responses"]
    assert "security" not in DEMO["paths"]["/v1/echo"]["post"]


def test_addresses_of_old_clients_are_deprecated() -> None:
    old = DEMO["paths"]["/v1/old/things"]["post"]
    assert old["deprecated"] is True
    assert "deprecated" not in DEMO["paths"]["/v1/things"]["post"]


def test_two_rows_may_have_types_of_one_name() -> None:
    async def nothing(context: Context, params: object) -> object:
        return None

    one = msgspec.defstruct("Create", [("a", int)], module="one")
    two = msgspec.defstruct("Create", [("b", str)], module="two")
    rows = [
        Endpoint(name=name, method="POST", path=f"/v1/{name}", params=kind, call=nothing, result=kind)
        for name, kind in (("one", one), ("two", two))
    ]
    made = described(rows)
    validate(made)
    fields = [made["paths"][f"/v1/{n}"]["post"]["requestBody"]["content"]["application/json"]["schema"] for n in ("one", "two")]
    assert [list(schema["properties"]) for schema in fields] == [["a"], ["b"]]


# -- the rows of health, figures and schema


async def bare(rows: list[Endpoint], name: str, params: msgspec.Struct | None = None) -> Document:
    (row,) = [row for row in rows if row.name == name]
    made = await row.call(Context("http", "", "", None), params or row.params())  # type: ignore[arg-type]  # an empty id
    assert isinstance(made, Document)
    return made


@pytest.mark.parametrize("status", [200, 503])
async def test_health_answers_bare_with_the_status_of_the_truth(status: int) -> None:
    rows = system_endpoints(Health(status), list)
    assert (await bare(rows, "system.livez")).status == 200
    for name in ("system.readyz", "system.healthz", "system.health"):
        assert (await bare(rows, name)).status == status
    assert all(row.bare and row.permission == "public" and row.rate == "none" and not row.socket for row in rows)
    assert (await bare(rows, "system.livez")).body == b'{"status":"alive"}'


async def test_the_schema_is_made_from_the_whole_table() -> None:
    rows = system_endpoints(Health(), lambda: Table().rows())
    assert (await bare(rows, "system.openapi")).body == document(Table().rows())


@pytest.mark.parametrize(
    ("given", "status"),
    [("Bearer secret", 200), ("bearer secret", 200), ("Bearer wrong", 401), ("Bearer alice", 401),
     ("secret", 401), (None, 401)],
)  # fmt: skip
async def test_figures_want_their_token_when_there_is_one(given: str | None, status: int, autojump_clock: MockClock) -> None:
    rows = system_endpoints(Health(), list, metrics_token="secret")
    async with open_front(rows=rows) as world:
        headers = {} if given is None else {"Authorization": given}
        got = await world.connect().ask(request("GET /metrics", headers))
    assert got.status == status
    if status == 200:
        assert (got.body, got.headers["content-type"].partition(";")[0]) == (b"figure 1\n", "text/plain")
    else:
        assert got.error["code"] == "UNAUTHORIZED"


async def test_figures_are_open_where_no_token_is_set(autojump_clock: MockClock) -> None:
    async with open_front(rows=system_endpoints(Health(), list)) as world:
        client = world.connect()
        assert (await client.ask(request("GET /metrics"))).body == b"figure 1\n"
        assert (await client.ask(request("GET /healthz/"))).json == {"status": "healthy"}
        assert (await client.ask(request("POST /healthz"))).status == 405
