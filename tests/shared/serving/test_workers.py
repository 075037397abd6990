"""Several processes on one port: what is asked of the settings, and what the parent does when a child ends."""

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress

import pytest

from tests.support.processes import free_port
from tokenry.errors import ConfigurationError
from tokenry.serving.settings import ServiceSettings, names_of
from tokenry.serving.workers import PARENT_VARIABLE, check_processes, environment_of, parent_of
from tokenry.testing.issuer import FakeIssuer


def settings(**changes):
    return ServiceSettings(**{"listen_address": "127.0.0.1:8080", "metrics_listen_address": "127.0.0.1:9090"} | changes)


@pytest.mark.parametrize(
    ("changes", "count", "named"),
    [
        ({}, 0, "--processes"),
        ({}, 257, "--processes"),
        ({"listen_address": "127.0.0.1:0"}, 2, "TOKENRY_LISTEN_ADDRESS"),
        ({"listen_address": "unix:/run/x.sock"}, 2, "TOKENRY_LISTEN_ADDRESS"),
        ({"metrics_listen_address": None}, 2, "TOKENRY_METRICS_LISTEN_ADDRESS"),
        ({"metrics_listen_address": "127.0.0.1:0"}, 2, "TOKENRY_METRICS_LISTEN_ADDRESS"),
        ({"metrics_listen_address": "127.0.0.1:65535"}, 2, "TOKENRY_METRICS_LISTEN_ADDRESS"),
        ({"metrics_listen_address": "127.0.0.1:8079"}, 2, "TOKENRY_METRICS_LISTEN_ADDRESS"),
    ],
)
def test_settings_that_processes_cannot_share_stop_the_start(changes, count, named):
    with pytest.raises(ConfigurationError) as raised:
        check_processes(settings(**changes), count)
    assert any(fault.startswith(named) for fault in raised.value.faults)


def test_one_process_needs_nothing_of_it():
    check_processes(settings(listen_address="unix:/run/x.sock", metrics_listen_address=None), 1)


def test_each_process_has_its_own_metrics_state_and_name():
    environ = {
        "TOKENRY_METRICS_LISTEN_ADDRESS": "127.0.0.1:9090",
        "TOKENRY_STATE_FOLDER": "/state",
        "METRICS_LISTEN_ADDRESS": "x",
    }
    second = environment_of(1, settings(instance="a"), environ)
    assert second["TOKENRY_METRICS_LISTEN_ADDRESS"] == "127.0.0.1:9091"
    assert (second["TOKENRY_STATE_FOLDER"], second["TOKENRY_INSTANCE"]) == ("/state/1", "a-1")
    assert "METRICS_LISTEN_ADDRESS" not in second
    assert parent_of(second) == os.getpid()
    assert parent_of({}) is None
    v6 = environment_of(2, settings(metrics_listen_address="[::1]:9090"), {})
    assert v6["TOKENRY_METRICS_LISTEN_ADDRESS"] == "[::1]:9092"


class Running:
    def __init__(self, process, port, metrics_port, log):
        self.process, self.port, self.metrics_port, self.log = process, port, metrics_port, log

    def events(self, name):
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == name]

    def children(self):
        found = {}
        for line in self.events("process started"):
            found[line["number"]] = line["child"]
        return found

    def status(self, path, port=None, headers=()):
        connection = http.client.HTTPConnection("127.0.0.1", port or self.port, timeout=5)
        try:
            connection.request("GET", path, headers=dict(headers))
            return connection.getresponse().status
        except OSError:
            return None
        finally:
            connection.close()

    def is_ready(self):
        return all(self.status("/readyz", self.metrics_port + number) == 200 for number in range(2))


def until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


@contextmanager
def two_processes(issuer, folder):
    port, metrics_port, log = free_port(), free_port(), folder / "log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "tokenry_tokeninfo", "--processes", "2"],
            env={
                "PATH": os.environ["PATH"],
                "TOKENRY_ISSUER": issuer.issuer,
                "TOKENRY_LISTEN_ADDRESS": f"127.0.0.1:{port}",
                "TOKENRY_METRICS_LISTEN_ADDRESS": f"127.0.0.1:{metrics_port}",
                "TOKENRY_DRAIN_SECONDS": "0",
            },
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    running = Running(process, port, metrics_port, log)
    try:
        until(running.is_ready)
        yield running
    finally:
        for pid in running.children().values():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.kill()
        process.wait()


@pytest.mark.processes
def test_two_processes_share_the_port_and_a_dead_one_is_replaced(tmp_path):
    with FakeIssuer() as issuer:
        issuer.serve()
        with two_processes(issuer, tmp_path) as running:
            headers = issuer.headers("orders")
            assert {running.status("/oauth2/tokeninfo", headers=headers) for _ in range(20)} == {200}
            first = running.children()
            os.kill(first[0], signal.SIGKILL)
            until(lambda: running.children()[0] != first[0])
            assert running.children()[1] == first[1]
            until(running.is_ready)
            assert {running.status("/oauth2/tokeninfo", headers=headers) for _ in range(20)} == {200}
            running.process.terminate()
            assert running.process.wait(timeout=15) == 0
            assert len(running.events("stopped")) == 2
            assert running.status("/healthz") is None


@pytest.mark.processes
def test_children_whose_parent_was_killed_end_too(tmp_path):
    with FakeIssuer() as issuer:
        issuer.serve()
        with two_processes(issuer, tmp_path) as running:
            running.process.kill()
            until(lambda: len(running.events("stopped")) == 2)
            assert len(running.events("the supervisor is gone")) == 2


@pytest.mark.processes
def test_a_fault_in_the_settings_of_a_child_ends_them_all(tmp_path):
    port = free_port()
    done = subprocess.run(
        [sys.executable, "-m", "tokenry_tokeninfo", "--processes", "2"],
        env={
            "PATH": os.environ["PATH"],
            "TOKENRY_ISSUER": "http://127.0.0.1:1",
            "TOKENRY_LISTEN_ADDRESS": "192.0.2.1:8080",  # not an address of this machine
            "TOKENRY_TRUSTED_PROXIES": "192.0.2.0/24",
            "TOKENRY_METRICS_LISTEN_ADDRESS": f"127.0.0.1:{port}",
        },
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 2
    assert "TOKENRY_LISTEN_ADDRESS" in done.stderr


def test_the_parents_name_for_children_is_no_setting():
    assert PARENT_VARIABLE not in {
        env for name, field in ServiceSettings.model_fields.items() for env in names_of(name, field)
    }
