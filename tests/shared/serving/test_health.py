import pytest

from tokenry.serving.health import Health, Status, degraded, failed, ok


def test_with_no_checks_it_is_ready():
    assert Health().report().ready


@pytest.mark.parametrize(
    ("findings", "status", "ready"),
    [
        ([ok()], Status.OK, True),
        ([ok(), degraded("old")], Status.DEGRADED, True),
        ([degraded("old"), failed("gone")], Status.FAILED, False),
    ],
)
def test_the_worst_finding_decides(findings, status, ready):
    health = Health()
    for number, finding in enumerate(findings):
        health.add(str(number), lambda finding=finding: finding)
    report = health.report()
    assert (report.status, report.ready) == (status, ready)


def test_a_check_that_breaks_is_a_failed_check_and_says_nothing_of_the_exception():
    health = Health()
    health.add("store", lambda: 1 / 0)
    report = health.report()
    assert not report.ready
    assert "division" not in str(report.body())


def test_draining_makes_it_not_ready_and_tells_each_listener_once():
    health, told = Health(), []
    health.on_drain(lambda: 1 / 0)
    health.on_drain(lambda: told.append(1))
    health.drain()
    health.drain()
    assert (health.report().ready, health.draining, told) == (False, True, [1])


def test_a_name_is_given_once():
    health = Health()
    health.add("a", ok)
    with pytest.raises(ValueError, match="already"):
        health.add("a", ok)
