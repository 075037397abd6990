"""Every code block of the library's pages and of the README is run."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from tests.support.doc_pages import Block, blocks
from tests.support.processes import Processes
from tokenry_cli.processes import free_port_base

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs" / "library").glob("*.md"))]
RUN = {"python", "console"}
READ = {"yaml": yaml.safe_load, "toml": tomllib.loads, "json": json.loads}
# Commands that have a test of their own, because they run for long, or make what this one runs in.
ELSEWHERE = ("make ",)


def name_of(page):
    return str(page.relative_to(ROOT))


def test_there_are_pages():
    assert len(PAGES) > 10


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_block_is_of_a_language_that_is_run_or_read(page):
    unknown = {block.language for block in blocks(page)} - RUN - set(READ)
    assert unknown == set()
    for block in blocks(page):
        READ.get(block.language, str)(block.text)


@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(b.language == "python" for b in blocks(page))], ids=name_of
)
def test_the_python_of_a_page_runs(page, tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.support.doc_pages", str(page), str(tmp_path)],
        cwd=ROOT,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "PYTHONPATH": str(ROOT),
            "CREDENTIALS_DIR": str(tmp_path),
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


@pytest.fixture(scope="module")
def ready(tmp_path_factory):
    """A platform as `tokenry dev` runs it, and its ready file."""
    folder = tmp_path_factory.mktemp("dev")
    processes = Processes(folder)
    arguments = ["dev", "--port-base", str(free_port_base(3)), "--data", str(folder / "data")]
    process = processes.start_module("tokenry_cli", *arguments, "--ready-file", str(folder / "ready.json"))
    process.wait_until((folder / "ready.json").exists, seconds=60)
    yield folder / "ready.json"
    processes.end()


def commands(block: Block) -> list[str]:
    """The commands of a console block: what stands behind `$ `, with the lines that a backslash joins."""
    joined = block.text.replace("\\\n", " ")
    return [line[2:] for line in joined.splitlines() if line.startswith("$ ")]


CONSOLE = [
    pytest.param(page, id=name_of(page))
    for page in PAGES
    if any(
        not command.startswith(ELSEWHERE) for b in blocks(page) if b.language == "console" for command in commands(b)
    )
]


@pytest.mark.processes
@pytest.mark.parametrize("page", CONSOLE)
def test_the_commands_of_a_page_run(page, ready, tmp_path):
    lines = [command for block in blocks(page) if block.language == "console" for command in commands(block)]
    script = "\n".join(line for line in lines if not line.startswith(ELSEWHERE))
    (tmp_path / "ready.json").write_bytes(ready.read_bytes())
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=tmp_path,
        env={"PATH": path, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, f"{script}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
