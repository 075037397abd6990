import pytest

from tests.services.issuer.support import running


@pytest.fixture
async def issuer():
    """An issuer with three realms, a handful of clients and users, and two keys."""
    async with running() as around:
        yield around
