"""
Jars from a Maven repository, each named by coordinates and SHA-256 in a lock file that is part of the
project.

jgo does Maven's part: which jars a library needs (`lock`), and fetching one. What it fetches is trusted only
once its SHA-256 is the locked one. TOKENRY_TEST_MAVEN_REPOSITORY names a mirror; without it jgo's default is
used.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import ssl
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from jgo.maven import MavenContext

# Four at a time: the repository's answers, not our line, are the bound, and it asks not to be hammered.
_CONCURRENT_FETCHES = 4
_ATTEMPTS = 3

# Where Debian's and Red Hat's families keep theirs; a Python built elsewhere does not know.
_SYSTEM_BUNDLES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt")


class JarsUnavailable(Exception):
    """The jars could not be fetched, or are not the locked ones."""


@dataclass(frozen=True, kw_only=True)
class Jar:
    """One locked jar: `group:artifact:version[:classifier]` and the SHA-256 of its bytes, in hexadecimal."""

    coordinates: str
    sha256: str

    @property
    def file_name(self) -> str:
        _, artifact, version, *classifier = self.coordinates.split(":")
        return "-".join([artifact, version, *classifier]) + ".jar"


def read_lock(path: Path) -> tuple[Jar, ...]:
    """Return the jars that the lock file *path* names."""
    jars = tomllib.loads(path.read_text())["jars"]
    return tuple(Jar(coordinates=name, sha256=digest) for name, digest in jars.items())


def write_lock(path: Path, root: str, *, keep: Callable[[str], bool]) -> int:
    """
    Resolve what *root* (`group:artifact:version`) needs, write it to *path* where *keep* agrees, return how
    many.
    """
    with tempfile.TemporaryDirectory() as directory:
        context = _context(Path(directory))
        inputs, needed = context.resolver.resolve([context.create_dependency(root)])
        names = sorted({_coordinates(dependency) for dependency in [*inputs, *needed]})
        names = [name for name in names if keep(name)]
        with ThreadPoolExecutor(_CONCURRENT_FETCHES) as pool:
            digests = list(pool.map(lambda name: _sha256(_resolve(context, name)), names))
    lines = [
        f"# What {root} needs, resolved by jgo. Remade by `python -m tests.support.cassandra lock`.",
        "",
        "[jars]",
    ]
    lines += [f'"{name}" = "{digest}"' for name, digest in zip(names, digests, strict=True)]
    path.write_text("\n".join(lines) + "\n")
    return len(names)


def fetch(jars: Sequence[Jar], directory: Path, *, say: Callable[[str], None]) -> list[Path]:
    """
    Return the paths of *jars* in *directory*, fetching those that are missing or damaged.

    Safe to run in several processes at once (one fetches, the others wait) and to interrupt: a file has its
    final name only after its hash was checked.

    Raises:
        JarsUnavailable: The repository cannot be reached, or serves other bytes than the locked ones.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with _only_one(directory / ".lock"):
        missing = [jar for jar in jars if not _is_locked_file(directory / jar.file_name, jar)]
        if missing:
            say(f"fetching {len(missing)} of {len(jars)} jars to {directory}")
            with _system_authorities():
                _fetch_missing(missing, directory)
    return [directory / jar.file_name for jar in jars]


def _fetch_missing(missing: Sequence[Jar], directory: Path) -> None:
    with tempfile.TemporaryDirectory(dir=directory, prefix=".incoming-") as incoming:
        context = _context(Path(incoming))

        def fetch_one(jar: Jar) -> None:
            path = _resolve(context, jar.coordinates)
            if not _is_locked_file(path, jar):
                message = f"{jar.coordinates} has SHA-256 {_sha256(path)}, locked is {jar.sha256}"
                raise JarsUnavailable(message)
            path.replace(directory / jar.file_name)

        with ThreadPoolExecutor(_CONCURRENT_FETCHES) as pool:
            list(pool.map(fetch_one, missing))


@contextlib.contextmanager
def _system_authorities() -> Iterator[None]:
    """
    Let requests, which brings certificate authorities of its own, ask the system's where it has any.

    A network may have an authority that only the system knows. What arrives is checked by its hash anyway.
    """
    variable = "REQUESTS_CA_BUNDLE"
    paths = ssl.get_default_verify_paths()
    bundle = paths.cafile or next((name for name in _SYSTEM_BUNDLES if Path(name).is_file()), None)
    if variable in os.environ or bundle is None:
        yield
        return
    os.environ[variable] = bundle
    try:
        yield
    finally:
        del os.environ[variable]


def _context(repo_cache: Path) -> MavenContext:
    mirror = os.environ.get("TOKENRY_TEST_MAVEN_REPOSITORY")
    remote_repos = {"mirror": mirror.rstrip("/")} if mirror else None
    # No local repository: what lies in somebody's home has not been checked by anyone.
    return MavenContext(repo_cache=repo_cache, local_repos=[], remote_repos=remote_repos, timeout=60)


def _resolve(context: MavenContext, coordinates: str) -> Path:
    group, artifact, version, *classifier = coordinates.split(":")
    wanted = context.project(group, artifact).at_version(version).artifact(*classifier)
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            path: Path = wanted.resolve()
        except Exception as error:
            # jgo wraps nothing: requests' exceptions, RuntimeError, OSError and others mean the same to us.
            if attempt == _ATTEMPTS:
                message = f"{coordinates} could not be fetched from the Maven repository: {error}"
                raise JarsUnavailable(message) from error
            if wanted.cached_path is not None:
                wanted.cached_path.unlink(missing_ok=True)
            time.sleep(attempt)
        else:
            return path
    raise AssertionError("the loop returns or raises")


def _coordinates(dependency: object) -> str:
    artifact = dependency.artifact  # type: ignore[attr-defined]  # jgo's Dependency is not public
    parts = [artifact.groupId, artifact.artifactId, artifact.version]
    return ":".join([*parts, artifact.classifier] if artifact.classifier else parts)


def _is_locked_file(path: Path, jar: Jar) -> bool:
    return path.is_file() and _sha256(path) == jar.sha256


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _only_one(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        # A killed run's half-fetched files; nobody else works here now.
        for leftover in path.parent.glob(".incoming-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        yield
