"""One running platform for all attacks, and the oracle that holds whatever is sent."""

from collections.abc import Callable, Iterator

import pytest

from tests.support.attacked import MAX_GROWTH_BYTES, AttackedPlatform, Presenter, Watch, given_away
from tests.support.http import call
from tests.support.processes import Processes


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AttackedPlatform]:
    """The platform that is attacked; one for the whole folder, so that what grows has time to."""
    folder = tmp_path_factory.mktemp("attacked")
    processes = Processes(folder / "processes")
    attacked = AttackedPlatform(folder, processes)
    attacked.start_all()
    yield attacked
    processes.end()


@pytest.fixture(scope="session")
def presenter(platform: AttackedPlatform) -> Iterator[Presenter]:
    """Presents tokens to the platform."""
    presenter = Presenter(platform)
    yield presenter
    presenter.close()


@pytest.fixture(scope="session")
def watch(platform: AttackedPlatform) -> Watch:
    """Looks at what the platform writes."""
    return Watch(platform)


@pytest.fixture(scope="session")
def grown(platform: AttackedPlatform) -> Callable[[], dict[str, int]]:
    """Return how much each process has grown since it was warm."""
    for _ in range(50):
        assert platform.is_well()
    at_first = {name: platform.resident_bytes(name) for name in platform.services}
    return lambda: {name: platform.resident_bytes(name) - before for name, before in at_first.items()}


@pytest.fixture(autouse=True)
def unharmed(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each test: no fault and no secret in what was written, and the next good request succeeds."""
    if "platform" not in request.fixturenames:
        yield
        return
    platform, watch = request.getfixturevalue("platform"), request.getfixturevalue("watch")
    yield
    complaints = watch.complaints()
    assert not complaints, "\n".join(complaints)
    assert platform.is_well(), platform.health()


@pytest.fixture(scope="module", autouse=True)
def neither_grown_nor_told(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each file: memory is bounded, no secret is in the metrics, and nothing was answered 500."""
    if not hasattr(request.module, "ATTACKS_THE_PLATFORM"):
        yield
        return
    platform = request.getfixturevalue("platform")
    grown = request.getfixturevalue("grown")
    yield
    assert max(grown().values()) < MAX_GROWTH_BYTES, grown()
    for service in ("issuer", "tokeninfo", "revocation"):
        metrics = call("GET", platform.url(service, "/metrics")).body.decode()
        faults = [line for line in metrics.splitlines() if 'status_code="500"' in line and "/auth" not in line]
        assert not faults, faults  # but for gateways without a policy: that is their owner's fault, and loud
        assert not given_away(platform.sent, metrics), service
