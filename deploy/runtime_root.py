# ruff: noqa: INP001 -- one file, copied alone into the build
"""
Make the root of an image that holds one interpreter, one virtual environment, and what these two load.

    python runtime_root.py /opt/tokenry /runtime

Standard library only; run by the very interpreter that the virtual environment belongs to. No shell, no package
manager, no other program gets in: what an intruder would use is not there.
"""

import compileall
import os
import py_compile
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

NONROOT = 65_532
# Parts of the standard library that a service never imports.
NOT_NEEDED = (
    *("test", "idlelib", "tkinter", "turtledemo", "ensurepip", "lib2to3", "macholib", "pydoc_data", "venv"),
    "site-packages",
)
FILES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/nsswitch.conf", "/etc/protocols", "/etc/services")


def main(environment: Path, root: Path) -> None:
    """Fill *root* with the interpreter, *environment*, and their shared libraries."""
    copy_interpreter(root)
    copy_tree(environment, root)
    for library in sorted(set(shared_libraries(root))):
        copy_file(library, root)
    for name in FILES:
        if Path(name).exists():
            copy_file(Path(name), root)
    write_accounts(root)
    (root / "tmp").mkdir(mode=0o1777, exist_ok=True)
    (root / "tmp").chmod(0o1777)
    # The root is read-only at run time, so byte code cannot be written then. It is never compared with its source.
    for folder in (standard_library(), environment):
        compileall.compile_dir(
            inside(root, folder),
            quiet=2,
            stripdir=str(root),
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        )


def standard_library() -> Path:
    """Return the folder of the standard library."""
    return Path(sysconfig.get_path("stdlib"))


def inside(root: Path, path: Path) -> Path:
    """Return where *path* is below *root*."""
    return root / path.relative_to("/")


def copy_interpreter(root: Path) -> None:
    """Copy the base interpreter, its library if it is shared, and the standard library."""
    executable = Path(os.path.realpath(sys.executable))
    copy_file(executable, root)
    for alias in ("python3", "python"):
        link = inside(root, executable.parent) / alias
        if link.name != executable.name:
            link.symlink_to(executable.name)
    shutil.copytree(
        standard_library(),
        inside(root, standard_library()),
        symlinks=True,
        ignore=shutil.ignore_patterns(*NOT_NEEDED, "config-*", "__pycache__", "*.a"),
    )


def copy_tree(folder: Path, root: Path) -> None:
    """Copy *folder* as it is, without byte code."""
    shutil.copytree(folder, inside(root, folder), symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))


def copy_file(path: Path, root: Path) -> None:
    """Copy what *path* leads to, to the same place."""
    target = inside(root, path)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(path, target)


def shared_libraries(root: Path) -> Iterator[Path]:
    """Yield the libraries outside *root* that the programs and modules in it load, and the loader."""
    for path in root.rglob("*"):
        if path.is_symlink() or not path.is_file() or not is_elf(path):
            continue
        done = subprocess.run(["ldd", str(path)], capture_output=True, text=True, check=False)  # noqa: S603, S607
        for line in done.stdout.splitlines():
            words = line.replace("=>", " ").split()
            found = [word for word in words if word.startswith("/")]
            if found and not Path(found[-1]).resolve().is_relative_to(root.resolve()):
                yield Path(found[-1])


def is_elf(path: Path) -> bool:
    """Tell whether *path* is a program or a library."""
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def write_accounts(root: Path) -> None:
    """Name the two users that programs ask for."""
    etc = root / "etc"
    etc.mkdir(parents=True, exist_ok=True)
    none = "/nonexistent:/nonexistent"
    (etc / "passwd").write_text(f"root:x:0:0:root:{none}\nnonroot:x:{NONROOT}:{NONROOT}:nonroot:{none}\n")
    (etc / "group").write_text(f"root:x:0:\nnonroot:x:{NONROOT}:\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
