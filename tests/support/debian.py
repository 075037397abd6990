"""Programs of Debian's packages: those of the machine, else unpacked into a cache, without installing anything."""

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
    if found := shutil.which(name):
        return Path(found)
    root = cache_directory().parent / "debian" / package
    if not (root / "usr/bin" / name).exists():
        _unpack(package, root)
    return root / "usr/bin" / name


def _unpack(package: str, root: Path) -> None:
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    try:
        subprocess.run(["apt-get", "download", package], cwd=root, check=True, capture_output=True, timeout=300)
        (archive,) = root.glob("*.deb")
        subprocess.run(["dpkg", "-x", str(archive), str(root)], check=True, capture_output=True, timeout=300)
        archive.unlink()
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        shutil.rmtree(root, ignore_errors=True)
        raise NoPackage(f"install Debian's package {package}: it could not be fetched ({error})") from error
