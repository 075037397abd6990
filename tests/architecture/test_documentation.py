"""Nothing is added, renamed or removed without its documentation."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from aiohttp import web

from tests.support import documentation
from tokenry.serving.settings import describe

OPERATIONS = {"/healthz", "/readyz", "/metrics", "/openapi.json"}


@pytest.fixture(scope="module")
def pages() -> Mapping[Path, str]:
    return documentation.pages()


@pytest.mark.parametrize(
    "name",
    [
        "docs/settings.md", "docs/metrics.md", "docs/endpoints.md", "docs/commands.md", "docs/standards.md",
        "ARCHITECTURE.md",
    ],
)  # fmt: skip
def test_the_pages_made_from_the_code_are_up_to_date(pages: Mapping[Path, str], name: str) -> None:
    path = documentation.ROOT / name
    assert path.read_text() == pages[path], f"{name} is out of date: run `make docs`"


@pytest.mark.parametrize("role", sorted(documentation.SETTINGS))
def test_every_setting_says_what_it_does(role: str) -> None:
    for setting in describe(documentation.SETTINGS[role]):
        assert len(setting.description) > 20, setting.name


def test_every_route_is_in_the_openapi_document_and_every_path_of_it_is_a_route() -> None:
    documents = documentation.openapi_documents()
    for role, app in documentation.applications().items():
        routes = {_path(route) for route in app.router.routes()} - OPERATIONS - {""}
        assert routes == set(documents[role]["paths"]) - OPERATIONS, role


def _path(route: web.AbstractRoute) -> str:
    resource = route.resource
    return "" if resource is None else resource.canonical
