"""No jar is used whose SHA-256 is not the locked one."""

import hashlib
from pathlib import Path

import pytest

from tests.support import maven
from tests.support.cassandra import LOCK_FILE
from tests.support.maven import Jar, JarsUnavailable

COORDINATES = "org.example:thing:1.0:linux"
CONTENT = b"the jar"
JAR = Jar(coordinates=COORDINATES, sha256=hashlib.sha256(CONTENT).hexdigest())


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A repository that serves CONTENT under any name, and records what was asked for."""
    asked: list[str] = []

    def resolve(context: object, coordinates: str) -> Path:
        asked.append(coordinates)
        path = tmp_path / "repository" / coordinates.replace(":", "-")
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(CONTENT)
        return path

    monkeypatch.setattr(maven, "_resolve", resolve)
    return asked


def test_a_missing_jar_is_fetched_once(repository: list[str], tmp_path: Path) -> None:
    said: list[str] = []
    for _ in range(2):
        assert maven.fetch([JAR], tmp_path / "cache", say=said.append) == [tmp_path / "cache" / "thing-1.0-linux.jar"]
    assert repository == [COORDINATES]
    assert len(said) == 1


def test_a_damaged_jar_is_fetched_again(repository: list[str], tmp_path: Path) -> None:
    (path,) = maven.fetch([JAR], tmp_path, say=str)
    path.write_bytes(CONTENT[:-1])
    maven.fetch([JAR], tmp_path, say=str)
    assert path.read_bytes() == CONTENT
    assert repository == [COORDINATES, COORDINATES]


def test_other_bytes_than_the_locked_ones_are_refused(repository: list[str], tmp_path: Path) -> None:
    wrong = Jar(coordinates=COORDINATES, sha256="0" * 64)
    with pytest.raises(JarsUnavailable, match="SHA-256"):
        maven.fetch([wrong], tmp_path / "cache", say=str)
    assert not list((tmp_path / "cache").glob("*.jar"))
    assert not list((tmp_path / "cache").glob(".incoming-*"))


def test_an_interrupted_fetch_leaves_nothing_that_counts(repository: list[str], tmp_path: Path) -> None:
    leftover = tmp_path / ".incoming-dead"
    leftover.mkdir()
    (leftover / "thing-1.0-linux.jar").write_bytes(b"half")
    maven.fetch([JAR], tmp_path, say=str)
    assert not leftover.exists()


def test_the_lock_names_every_jar_with_its_hash() -> None:
    jars = maven.read_lock(LOCK_FILE)
    assert "org.apache.cassandra:cassandra-all:5.0.9" in {jar.coordinates for jar in jars}
    assert all(len(jar.sha256) == 64 and int(jar.sha256, 16) for jar in jars)
    assert len({jar.file_name for jar in jars}) == len(jars)
