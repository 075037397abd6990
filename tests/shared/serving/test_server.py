import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.shared.serving.test_application import make_app
from tokenry.errors import ConfigurationError
from tokenry.serving.application import serve

SERVICE = Path(__file__).parent / "service_for_tests.py"


@contextmanager
def service(**environ):
    """Run the small service; yields the process and its first address, once it says that it listens."""
    process = subprocess.Popen(
        [sys.executable, SERVICE],
        env={
            "PATH": os.environ["PATH"],
            "TOKENRY_LISTEN_ADDRESS": "127.0.0.1:0",
            "TOKENRY_DRAIN_SECONDS": "0",
            **environ,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        lines = []
        for line in process.stdout:
            lines.append(json.loads(line))
            if lines[-1]["event"] == "listening":
                break
        yield process, lines
    finally:
        process.kill()
        process.communicate()


def get(address, path, timeout=5):
    host, _, port = address.rpartition(":")
    with closing(HTTPConnection(host, int(port), timeout=timeout)) as connection:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_stop_finishes_what_is_in_flight_and_exits_0(number, loop):
    with service(TOKENRY_EVENT_LOOP=loop) as (process, lines):
        address = lines[-1]["addresses"][0]
        answers = []
        asking = threading.Thread(target=lambda: answers.append(get(address, "/slow")))
        asking.start()
        time.sleep(0.4)
        process.send_signal(number)
        asking.join()
        out, err = process.communicate(timeout=10)
        assert answers == [(200, "finished")]
        assert (process.returncode, err) == (0, "")
        assert [json.loads(line)["event"] for line in out.splitlines()] == ["draining", "request", "stopped"]


def test_while_settling_it_is_not_ready_and_still_answers():
    with service(TOKENRY_DRAIN_SECONDS="5s") as (process, lines):
        address = lines[-1]["addresses"][0]
        assert get(address, "/readyz")[0] == 200
        process.terminate()
        time.sleep(0.3)
        assert get(address, "/readyz")[0] == 503
        assert get(address, "/healthz")[0] == 200
        process.terminate()  # a second signal skips the settling
        assert process.wait(3) == 0


def test_metrics_have_a_port_of_their_own():
    with service(TOKENRY_METRICS_LISTEN_ADDRESS="127.0.0.1:0") as (_, lines):
        operations = next(line["addresses"][0] for line in lines if line["event"] == "metrics")
        assert get(lines[-1]["addresses"][0], "/metrics")[0] == 404
        status, text = get(operations, "/metrics")
        assert status == 200
        assert "tokenry_build_info" in text
        assert get(operations, "/readyz")[0] == 200


def test_wrong_settings_are_all_named_and_exit_2():
    done = subprocess.run(
        [sys.executable, SERVICE, "--check-settings"],
        env={"TOKENRY_LISTEN_ADDRESS": "nonsense", "TOKENRY_DRAIN_SECONDS": "soon"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "TOKENRY_LISTEN_ADDRESS" in done.stderr
    assert "TOKENRY_DRAIN_SECONDS" in done.stderr


def test_an_address_in_use_is_named_and_exits_2():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = subprocess.run(
            [sys.executable, SERVICE],
            env={"TOKENRY_LISTEN_ADDRESS": address},
            capture_output=True,
            text=True,
            check=False,
            timeout=20,
        )
    assert done.returncode == 2
    assert f"cannot listen on {address}" in done.stderr


async def test_it_listens_on_a_unix_socket_and_leaves_nothing_behind(tmp_path):
    path = tmp_path / "s.sock"
    path.touch()
    path.unlink()
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(path))
    dead.close()  # as a process that was killed leaves it
    import aiohttp

    async with (
        serve(make_app(), [f"unix:{path}"]),
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as session,
        session.get("http://x/who") as answer,
    ):
        assert (await answer.json())["address"] == "unix"
    assert not path.exists()


async def test_a_unix_socket_that_somebody_serves_is_not_taken_away(tmp_path):
    path = tmp_path / "s.sock"
    async with serve(make_app(), [f"unix:{path}"]):
        with pytest.raises(ConfigurationError, match="cannot listen"):
            async with serve(make_app(), [f"unix:{path}"]):
                pass
        assert path.exists()
