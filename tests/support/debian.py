"""Programs of Debian's packages: those of the machine, else unpacked into a cache, without installing anything."""

import os
import shutil
import subprocess
from pathlib import Path

from tests.support.cassandra import cache_directory


class NoPackage(Exception):
    """The program is not there and its package could not be fetched; the text says what to do."""


def program(name: str, *, package: str) -> Path:
    """
    Return the path of the program *name*: on the PATH, or from Debian's *package*.

    Raises:
        NoPackage: Neither.
    """
    if found := shutil.which(name, path=_PATH):
        return Path(found)
    root = cache_directory().parent / "debian" / package
    if not any(root.glob(f"usr/*bin/{name}")):
        _unpack(package, root)
    for unpacked in root.glob(f"usr/*bin/{name}"):
        return unpacked
    raise NoPackage(f"Debian's package {package} holds no program {name}: name the package that does")


_PATH = f"{os.environ.get('PATH', '/usr/bin:/bin')}:/usr/sbin:/sbin"  # servers lie where a user's PATH does not lead


def _unpack(package: str, root: Path) -> None:
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    # Lists of our own where the machine has none (fresh images come without): needs no rights, leaves nothing behind.
    lists = root.parent / "lists"
    (lists / "partial").mkdir(parents=True, exist_ok=True)
    own = ["-o", f"Dir::State::lists={lists}", "-o", f"Dir::Cache={root.parent / 'archives'}"]
    try:
        try:
            _run("apt-get", "download", package, cwd=root)
        except subprocess.SubprocessError:
            _run("apt-get", *own, "update", cwd=root)
            _run("apt-get", *own, "download", package, cwd=root)
        (archive,) = root.glob("*.deb")
        _run("dpkg", "-x", str(archive), str(root), cwd=root)
        archive.unlink()
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        shutil.rmtree(root, ignore_errors=True)
        raise NoPackage(f"install Debian's package {package}: it could not be fetched ({error})") from error


def _run(*command: str, cwd: Path) -> None:
    subprocess.run(command, cwd=cwd, check=True, capture_output=True, timeout=300)
