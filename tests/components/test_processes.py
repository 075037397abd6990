"""Processes that tests start do not outlive them, whatever ends the test run."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.processes import Process, Processes, ProcessFailed, base_environment, free_port

SLEEP = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"]


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A process that nobody has waited for yet still has its number; its state tells.
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 10
    while is_alive(pid):
        assert time.monotonic() < deadline, f"{pid} still runs"
        time.sleep(0.02)


def test_output_is_kept_and_the_status_of_a_signal_is_negative(processes: Processes) -> None:
    process = processes.start("sleep", SLEEP)
    process.wait_until(lambda: "up" in process.output(), seconds=10)
    assert process.terminate() == -signal.SIGTERM
    assert not process.running


def test_what_ends_before_it_is_ready_is_reported_with_its_output(processes: Processes) -> None:
    with pytest.raises(ProcessFailed, match=r"status 3 before it was ready\nno such setting"):
        processes.start(
            "failing",
            [sys.executable, "-c", "print('no such setting'); raise SystemExit(3)"],
            ready_url=f"http://127.0.0.1:{free_port()}/",
        )


def test_readiness_over_http_is_waited_for(processes: Processes, tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)]
    process = processes.start("http", command, cwd=tmp_path, ready_url=f"http://127.0.0.1:{port}/")
    assert process.running


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
def test_a_process_ends_when_its_starter_is_killed(tmp_path: Path) -> None:
    # The starter forks from a worker thread that ends at once: that alone must not end the process.
    starter = f"""
import sys, threading, time
from pathlib import Path
from tests.support.processes import Process
process = Process("sleep", {SLEEP!r}, output=Path({str(tmp_path / "log")!r}))
thread = threading.Thread(target=process.start)
thread.start()
thread.join()
process.wait_until(lambda: "up" in process.output(), seconds=10)
time.sleep(0.2)
print(process.pid if process.running else 0, flush=True)
time.sleep(60)
"""
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", starter], stdout=subprocess.PIPE, cwd=root, env=base_environment()
    ) as popen:
        assert popen.stdout is not None
        pid = int(popen.stdout.readline())
        assert pid
        assert is_alive(pid)
        popen.kill()
    wait_until_gone(pid)


def test_a_child_sees_none_of_our_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENRY_ISSUER_BUCKET", "from outside")
    command = [sys.executable, "-c", "import os; print(sorted(os.environ))"]
    process = Process("env", command, output=tmp_path / "log", env={"MINE": "1"})
    process.start()
    assert process.wait(seconds=10) == 0
    assert "MINE" in process.output()
    assert "TOKENRY" not in process.output()


def test_ports_are_not_given_twice() -> None:
    assert len({free_port() for _ in range(50)}) == 50
