"""
Fixtures for pytest; registered by the distribution's entry point, imported only when a test asks for them.

* `fake_issuer`: a `FakeIssuer` on a loopback port, with the `TOKENRY_*` variables set for the test.
* `clock`: a `FakeClock`. In a test that asks for both, it is the fake issuer's clock.
* `auth_headers`: headers with a token; `@pytest.mark.tokenry(scope="orders.read", sub="basket")` says of what kind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tokenry.testing.clock import FakeClock
    from tokenry.testing.issuer import FakeIssuer

# What would lead a client elsewhere than to the fake.
_OTHER_VARIABLES = (
    "TOKENRY_TOKEN_URL",
    "TOKENRY_CLIENT_SECRET_FILE",
    "TOKENRY_CLIENT_ASSERTION_FILE",
    "TOKENRY_ENDPOINT_SOCKET",
    "TOKENRY_REALM",
    "OAUTH2_ACCESS_TOKEN_URL",
    "OAUTH2_ACCESS_TOKENS",
    "CREDENTIALS_DIR",
)


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker, for those who run with `--strict-markers`."""
    config.addinivalue_line(
        "markers", "tokenry(**arguments): the token of `auth_headers`, as FakeIssuer.token takes it."
    )


@pytest.fixture
def clock() -> FakeClock:
    """Return a clock that moves only when the test advances it."""
    from tokenry.testing.clock import FakeClock

    return FakeClock()


@pytest.fixture
def fake_issuer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeIssuer]:
    """Yield an issuer on a loopback port; `ClientCredentials()` finds it through the environment."""
    from tokenry.testing.issuer import FakeIssuer

    shared = request.getfixturevalue("clock") if "clock" in request.fixturenames else None
    with FakeIssuer(clock=shared) as issuer:
        for name in _OTHER_VARIABLES:
            monkeypatch.delenv(name, raising=False)
        for name, value in issuer.environment().items():
            monkeypatch.setenv(name, value)
        yield issuer


@pytest.fixture
def auth_headers(request: pytest.FixtureRequest, fake_issuer: FakeIssuer) -> dict[str, str]:
    """Return headers with a token of the kind that the marker `tokenry` says."""
    marker = request.node.get_closest_marker("tokenry")
    arguments = {} if marker is None else dict(marker.kwargs)
    return fake_issuer.headers(*(marker.args if marker is not None else ()), **arguments)
