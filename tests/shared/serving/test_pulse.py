"""The event loop's pulse: how late it is, who held it, and that a held service is not ready."""

import asyncio
import threading
import time

import structlog

from tokenry.serving.health import Status
from tokenry.serving.metrics import Metrics
from tokenry.serving.pulse import BEAT_SECONDS, HELD_SECONDS, LOOK_SECONDS, RED_SECONDS, Pulse, Watchdog
from tokenry.testing.clock import FakeClock


class Machine:
    """A clock, and how much of its time a process was running."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.ran = 0.0
        self.own = 0.0
        self.metrics = Metrics(service="example")
        self.pulse = Pulse(
            self.metrics,
            monotonic=self.clock.monotonic,
            processor_seconds=lambda: self.ran,
            thread_seconds=lambda: self.own,
        )

    def passes(self, seconds: float, *, running: float = 0.0, own: float = 0.0) -> None:
        self.clock.advance(seconds)
        self.ran += running
        self.own += own

    def watched(self, seconds: float, *, running: float = 0.0) -> list[dict]:
        """Let *seconds* pass during which only the watching thread is let through; return what it logged."""
        with structlog.testing.capture_logs() as logs:
            for _ in range(round(seconds / LOOK_SECONDS)):
                self.passes(LOOK_SECONDS, running=running * LOOK_SECONDS)
                self.pulse.look()
        return logs

    def sample(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


def test_a_loop_on_time_is_ready_and_nothing_is_said():
    machine = Machine()
    with structlog.testing.capture_logs() as logs:
        for _ in range(100):
            machine.passes(machine.pulse.beat())
            machine.pulse.look()
            assert machine.pulse.finding().status is Status.OK
    assert logs == []
    assert machine.sample("tokenry_event_loop_delay_seconds_bucket", le="0.001") == 99


def test_how_late_each_beat_was_is_counted():
    machine = Machine()
    machine.pulse.beat()
    for late in (0.0, 0.2, 3.0):
        machine.passes(BEAT_SECONDS + late)
        machine.pulse.beat()
    assert machine.sample("tokenry_event_loop_delay_seconds_bucket", le="0.1") == 1
    assert machine.sample("tokenry_event_loop_delay_seconds_bucket", le="0.25") == 2
    assert machine.sample("tokenry_event_loop_delay_seconds_count") == 3
    assert machine.sample("tokenry_event_loop_lag_seconds") == 3.0


def test_what_took_the_time_of_a_late_timer_is_counted():
    machine = Machine()
    machine.pulse.beat()
    for running, own in ((0.3, 0.3), (0.3, 0.0), (0.0, 0.0), (0.02, 0.02)):
        machine.passes(BEAT_SECONDS + 0.3, running=running, own=own)
        machine.pulse.beat()
    machine.passes(BEAT_SECONDS + 0.09, running=0.1, own=0.1)  # not late enough to ask
    machine.pulse.beat()
    found = {by: machine.sample("tokenry_event_loop_late_total", by=by) for by in ("loop", "threads", "elsewhere")}
    assert found == {"loop": 1, "threads": 1, "elsewhere": 2}


def test_F41_a_loop_that_is_held_is_told_of_once_with_its_stack_and_counted():
    machine = Machine()
    machine.pulse.beat()
    logs = machine.watched(5.0)
    assert [line["event"] for line in logs] == ["the event loop is held"]
    assert HELD_SECONDS <= logs[0]["seconds"] < HELD_SECONDS + 2 * LOOK_SECONDS
    assert any("test_F41_a_loop_that_is_held_is_told_of_once" in place for place in logs[0]["frames"])
    machine.pulse.beat()
    assert len(machine.watched(1.0)) == 1  # the next time is told of again
    machine.pulse.beat()  # late as well, and told already
    assert machine.sample("tokenry_event_loop_held_total", by="loop") == 2


def test_F41_from_one_second_on_it_is_not_ready_until_it_is_on_time_again():
    machine = Machine()
    machine.pulse.beat()
    machine.passes(BEAT_SECONDS + RED_SECONDS - 0.01)
    assert machine.pulse.finding().status is Status.OK
    machine.passes(0.02)
    assert machine.pulse.finding().status is Status.FAILED
    machine.passes(0.5)
    machine.pulse.beat()  # who asked meanwhile is answered after this beat, and is told
    assert machine.pulse.finding().status is Status.FAILED
    machine.passes(BEAT_SECONDS)
    machine.pulse.beat()
    assert machine.pulse.finding().status is Status.OK


def test_F41_what_holds_the_interpreter_as_well_is_blamed_on_the_loop():
    """The watching thread was not let through either, but the process was busy."""
    machine = Machine()
    machine.pulse.beat()
    machine.watched(0.2)
    machine.pulse.beat()
    machine.passes(2.0, running=2.0)
    with structlog.testing.capture_logs() as logs:
        machine.pulse.look()
    assert [line["event"] for line in logs] == ["the event loop is held"]


def test_F42_a_process_that_did_not_run_is_told_apart_and_is_ready_with_the_second_beat():
    machine = Machine()
    machine.pulse.beat()
    machine.watched(0.2)
    machine.pulse.beat()
    machine.passes(5.0)
    with structlog.testing.capture_logs() as logs:
        machine.pulse.look()
    assert [line["event"] for line in logs] == ["the process did not run"]
    assert machine.sample("tokenry_event_loop_held_total", by="process") == 1
    assert machine.sample("tokenry_event_loop_held_total", by="loop") == 0
    machine.pulse.beat()
    machine.passes(BEAT_SECONDS)
    machine.pulse.beat()
    assert machine.pulse.finding().status is Status.OK


def test_F42_what_was_over_before_the_watching_thread_could_look_is_told_by_the_loop():
    machine = Machine()
    machine.pulse.beat()
    machine.passes(BEAT_SECONDS + 5.0)
    with structlog.testing.capture_logs() as logs:
        machine.pulse.beat()
        machine.passes(BEAT_SECONDS + 2.0, running=2.0)
        machine.pulse.beat()
        machine.pulse.look()
    assert [line["event"] for line in logs] == ["the process did not run", "the event loop is held"]
    assert machine.sample("tokenry_event_loop_held_total", by="process") == 1
    assert machine.sample("tokenry_event_loop_held_total", by="loop") == 1


def test_a_pulse_that_was_stopped_is_never_late():
    machine = Machine()
    machine.pulse.beat()
    machine.pulse.stop()
    assert machine.watched(5.0) == []
    assert machine.pulse.finding().status is Status.OK


def _holds_the_loop(until: threading.Event) -> None:
    """Stand for a name that is resolved on the loop, a file on a slow disk, a hash."""
    assert until.wait(30)


async def test_F41_the_real_thread_names_the_real_function_that_holds_the_real_loop():
    metrics = Metrics(service="example")
    watchdog, told = Watchdog(Pulse(metrics)), threading.Event()

    def tell(_logger, _method, event):
        if event["event"] == "the event loop is held":
            told.stack = event["frames"]
            told.set()
        raise structlog.DropEvent

    structlog.configure(processors=[tell])
    try:
        watchdog.start()
        began = time.monotonic()
        await asyncio.sleep(4 * BEAT_SECONDS)
        _holds_the_loop(told)
        assert time.monotonic() - began > HELD_SECONDS
    finally:
        structlog.reset_defaults()
        await watchdog.stop()
    assert any("test_pulse._holds_the_loop" in place for place in told.stack)
    assert metrics.registry.get_sample_value("tokenry_event_loop_held_total", {"by": "loop"}) >= 1
    assert "pulse" not in {thread.name for thread in threading.enumerate() if not thread.daemon}
