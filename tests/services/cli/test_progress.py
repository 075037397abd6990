"""Long work says how far it has come: on a terminal, without one, and for programs."""

import io
import os
import pty
import subprocess
import sys
import threading

from rich.console import Console

from tests.support.processes import base_environment
from tokenry_cli import progress as module
from tokenry_cli.invocation import Invocation, calling
from tokenry_cli.progress import ProgressForm, Reporter


class Clock:
    def __init__(self):
        self.seconds = 0.0

    def __call__(self):
        return self.seconds


def test_a_line_says_what_is_known():
    clock = Clock()
    reporter = Reporter("revoked", total=120_000, now=clock)
    clock.seconds = 20.0
    reporter.update(41_000, errors=3)
    assert reporter.line() == "revoked 41,000/120,000  34 %  2,050/s  eta 39 s  errors 3"


def test_without_a_total_there_is_no_percentage():
    clock = Clock()
    reporter = Reporter("revoked", total=None, now=clock)
    clock.seconds = 2.0
    reporter.update(10)
    assert reporter.line() == "revoked 10  5/s  errors 0"


def test_nothing_is_divided_by_nothing():
    assert Reporter("done", total=0, now=Clock()).line() == "done 0/0  0/s  errors 0"


def test_without_a_terminal_a_line_comes_every_few_seconds_also_while_nothing_is_done(monkeypatch):
    said, lines = threading.Event(), []

    class Pipe(io.StringIO):
        def write(self, text):
            lines.append(text)
            said.set()
            return len(text)

    monkeypatch.setattr(module, "people", Console(file=Pipe(), force_terminal=False))
    monkeypatch.setattr(module, "SAY_SECONDS", 0.02)
    with Reporter("revoked", total=5):
        assert said.wait(30)
    assert "revoked 0/5" in "".join(lines)


def test_quiet_is_quiet_and_json_is_said_all_the_same(capsys):
    with calling(Invocation(quiet=True)):
        with Reporter("done", total=1) as reporter:
            reporter.update(1)
        assert capsys.readouterr().err == ""
        with Reporter("done", total=1, form=ProgressForm.JSON) as reporter:
            reporter.update(1)
    assert capsys.readouterr().err.count("\n") == 2


def test_a_terminal_has_a_bar_and_standard_output_has_none():
    """Over a real pseudo-terminal as standard error."""
    code = (
        "import time\nfrom tokenry_cli.progress import Reporter\n"
        "with Reporter('revoked', total=4) as reporter:\n"
        "    for number in range(5):\n        reporter.update(number)\n        time.sleep(0.15)\n"
    )
    outer, inner = pty.openpty()
    try:
        environ = {**base_environment(), "TERM": "xterm", "COLUMNS": "100"}
        done = subprocess.run(
            [sys.executable, "-c", code], stderr=inner, stdout=subprocess.PIPE, env=environ, timeout=120, check=True
        )
        seen = os.read(outer, 1 << 16).decode()
    finally:
        os.close(outer)
        os.close(inner)
    assert done.stdout == b""
    assert "revoked" in seen
    assert "\u2501" in seen  # the bar
    assert "4/4" in seen
