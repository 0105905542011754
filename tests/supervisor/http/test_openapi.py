"""The API's description: complete, valid, and true of its examples."""

import json
import re
from html.parser import HTMLParser
from typing import Any

import msgspec
import pytest

from supervisor.dispatch.request import Scope
from supervisor.http.description import SPECS, described
from supervisor.http.routes import ROUTES
from tests.supervisor.http.conftest import Service

DOCUMENT = json.loads(msgspec.json.encode(described(ROUTES)))
WITHOUT_BODY = {
    "/v1/responses/{response}/cancel",
    "/v1/models/{model:.+}/load",
    "/v1/models/{model:.+}/unload",
}
"""Routes whose POST takes no body."""


def refs(value: Any) -> set[str]:
    if isinstance(value, dict):
        own = {value["$ref"]} if "$ref" in value else set()
        return own.union(*map(refs, value.values()))
    return set().union(*map(refs, value)) if isinstance(value, list) else set()


def test_every_route_is_described() -> None:
    found = {
        (method.upper(), path) for path, methods in DOCUMENT["paths"].items() for method in methods
    }
    assert found == {(r.method, re.sub(r":[^}]*", "", r.path)) for r in ROUTES}


def test_every_route_with_a_body_has_its_type_and_an_example() -> None:
    for route in ROUTES:
        spec = SPECS.get((route.method, route.path))
        refuses = spec is not None and spec.refuses
        takes_one = route.method == "POST" and route.path not in WITHOUT_BODY and not refuses
        assert bool(spec and spec.body) == takes_one, route.path
        assert spec is None or (spec.body is None) == (spec.example is None)
    assert SPECS.keys() <= {(r.method, r.path) for r in ROUTES}


def test_every_operation_has_a_summary_of_one_sentence() -> None:
    for methods in DOCUMENT["paths"].values():
        for operation in methods.values():
            assert operation["summary"].endswith("."), operation


def test_every_reference_leads_to_a_schema() -> None:
    names = {ref.removeprefix("#/components/schemas/") for ref in refs(DOCUMENT)}
    assert names <= DOCUMENT["components"]["schemas"].keys()


def test_operations_have_ids_of_their_own() -> None:
    ids = [o["operationId"] for methods in DOCUMENT["paths"].values() for o in methods.values()]
    assert len(set(ids)) == len(ids)


def test_a_bound_of_a_field_is_in_its_schema() -> None:
    fields = DOCUMENT["components"]["schemas"]["ChatFields"]["properties"]
    assert {"type": "number", "minimum": 0.0, "maximum": 1.0} in fields["top_p"]["anyOf"]


def test_an_example_is_of_its_type() -> None:
    for spec in SPECS.values():
        if spec.body is not None:
            msgspec.convert(spec.example, spec.body)


async def test_the_document_and_the_page_are_served(service: Service) -> None:
    served = await service.get("/openapi.json")
    assert json.loads(served.body) == DOCUMENT
    page = await service.get("/docs")
    assert page.headers["Content-Type"].startswith("text/html")
    text = page.body.decode()
    assert all(route.path.split("{")[0] in text for route in ROUTES)


class Links(HTMLParser):
    """Collects all addresses, and notes scripts and tags that stay open."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.open: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in ("meta", "br"):
            self.open.append(tag)
        self.addresses += [v or "" for name, v in attributes if name in ("href", "src")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


async def test_the_page_needs_nothing_from_outside(service: Service) -> None:
    links = Links()
    links.feed((await service.get("/docs")).body.decode())
    assert links.open == []
    assert not links.tags & {"script", "img", "iframe", "link"}
    assert all(address.startswith(("#", "/")) for address in links.addresses)


@pytest.mark.parametrize(
    "route",
    [
        route
        for route in ROUTES
        if (spec := SPECS.get((route.method, route.path)))
        and spec.body
        and route.scope is not Scope.ADMIN
        and not route.signs_in
    ],
    ids=lambda route: route.path,
)
async def test_every_example_is_answered_as_described(route: Any, service: Service) -> None:
    spec = SPECS[route.method, route.path]
    answer = await service.post(route.path, dict(spec.example or {}))
    assert answer.status == 200, answer.body
    if spec.answer is not None:
        msgspec.convert(json.loads(answer.body), spec.answer)


@pytest.mark.parametrize("route", [key for key, spec in SPECS.items() if spec.refuses], ids=str)
async def test_a_route_that_only_refuses_is_described_and_does_so(
    route: tuple[str, str], service: Service
) -> None:
    method, path = route
    assert "200" not in DOCUMENT["paths"][path][method.lower()]["responses"]
    async with service.http.request(method, path, json={}) as response:
        assert response.status == 501
