"""Fakes for the tests of services that use tokens: a clock that moves by hand, and a whole issuer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tokenry.testing.clock import FakeClock

if TYPE_CHECKING:
    from tokenry.testing.issuer import FakeIssuer

__all__ = ["FakeClock", "FakeIssuer"]


def __getattr__(name: str) -> Any:  # noqa: ANN401 -- the class below
    if name == "FakeIssuer":
        from tokenry.testing.issuer import FakeIssuer

        return FakeIssuer
    raise AttributeError(f"module 'tokenry.testing' has no attribute {name!r}")
