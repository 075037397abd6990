import logging
import threading

import pytest

from tokenry.errors import TokenryError
from tokenry.http.fetch import Failure, FetchFailed, Request, Response
from tokenry.http.poller import Poller, Wait
from tokenry.testing.clock import FakeClock


class ScriptedFetcher:
    def __init__(self, *answers):
        self.answers = list(answers)
        self.requests = []
        self.cancelled = threading.Event()

    def fetch(self, request):
        self.requests.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer() if callable(answer) else answer

    def cancel(self):
        self.cancelled.set()


class Recorder:
    """A conversation that asks as long as it has something to ask, and writes down what it is told."""

    name = "recorder"

    def __init__(self, *steps):
        self.steps = list(steps)
        self.told = []
        self.idle = threading.Event()

    def next_request(self, at):
        if self.steps:
            return self.steps.pop(0)
        self.idle.set()
        return Wait(30)

    def on_response(self, response, *, started, at):
        self.told.append(response.status)

    def on_failure(self, failure, *, started, at):
        self.told.append(failure.failure)


ASK = Request(url="https://h/")


def make(conversation, *answers, **more):
    fetcher = ScriptedFetcher(*answers)
    return Poller(conversation, fetcher=fetcher, clock=FakeClock(), **more), fetcher


def test_a_step_performs_one_exchange_and_tells_the_conversation():
    conversation = Recorder(ASK, Wait(7))
    poller, fetcher = make(conversation, Response(status=200))
    assert (poller.step(), poller.step()) == (0.0, 7)
    assert (conversation.told, len(fetcher.requests)) == ([200], 1)


def test_a_failed_fetch_is_told():
    conversation = Recorder(ASK)
    poller, _ = make(conversation, FetchFailed(Failure.TIMEOUT, "late"))
    poller.step()
    assert conversation.told == [Failure.TIMEOUT]


def test_a_request_is_prepared_and_a_preparation_that_fails_is_a_failed_fetch():
    conversation = Recorder(ASK)

    def refuse(request):
        raise TokenryError("no token")

    poller, fetcher = make(conversation, prepare=refuse)
    poller.step()
    assert (conversation.told, fetcher.requests) == ([Failure.UNAUTHENTICATED], [])


def test_the_thread_carries_the_conversation_until_it_is_stopped():
    conversation = Recorder(ASK, ASK)
    poller, fetcher = make(conversation, Response(status=200), Response(status=304))
    poller.start()
    assert conversation.idle.wait(5)
    poller.stop()
    assert conversation.told == [200, 304]
    assert not poller.running
    assert fetcher.cancelled.is_set()


def test_starting_twice_makes_one_thread():
    conversation = Recorder()
    poller, _ = make(conversation)
    poller.start()
    first = poller._thread
    poller.start()
    assert poller._thread is first
    poller.stop()


def test_a_wake_up_ends_the_wait():
    conversation = Recorder()
    poller, _ = make(conversation, Response(status=204))
    poller.start()
    assert conversation.idle.wait(5)
    conversation.steps.append(ASK)
    conversation.idle.clear()
    poller.wake()
    assert conversation.idle.wait(5)
    poller.stop()
    assert conversation.told == [204]


def test_a_defect_is_logged_counted_and_told_as_a_failure(caplog):
    conversation = Recorder(ASK)
    poller, _ = make(conversation, ZeroDivisionError("oops"))
    with caplog.at_level(logging.ERROR, logger="tokenry"):
        assert poller._guarded_step() == 1.0
    assert (poller.errors, conversation.told) == (1, [Failure.INTERNAL])
    assert "a defect in recorder" in caplog.text


def test_a_conversation_that_fails_at_everything_does_not_spin():
    class Broken(Recorder):
        def next_request(self, at):
            raise ZeroDivisionError

        def on_failure(self, failure, *, started, at):
            raise ZeroDivisionError

    poller, _ = make(Broken())
    assert poller._guarded_step() == 1.0


def test_a_forked_child_starts_its_own_thread_at_first_use():
    conversation = Recorder()
    poller, _ = make(conversation)
    poller.start()
    parents, parents_wake = poller._thread, poller._wake
    poller.after_fork()
    assert poller.orphaned
    assert not poller.running
    poller.revive()
    assert poller.running
    assert poller._thread is not parents
    poller.stop()
    parents_wake.set()
    parents.join(5)


def test_a_poller_that_was_never_started_is_not_revived():
    poller, _ = make(Recorder())
    poller.after_fork()
    poller.revive()
    assert not poller.running


@pytest.mark.parametrize("times", [1, 2])
def test_stopping_is_repeatable(times):
    poller, _ = make(Recorder())
    poller.start()
    for _ in range(times):
        poller.stop()
    assert not poller.running


def test_a_request_that_was_cut_off_by_stop_is_not_told_as_a_failure():
    conversation = Recorder(ASK, ASK)
    poller, _ = make(conversation, FetchFailed(Failure.CANCELLED, "cut"), FetchFailed(Failure.TIMEOUT, "late"))
    poller.step()
    poller.step()
    assert conversation.told == [Failure.TIMEOUT]
