"""
Run the library's tests on every Python that Tokenry supports: `make test-pythons`.

Each version gets an environment of its own (.venv-3.12, …) from the same locked requirements. A version that
is not on the machine fails the run: a matrix with a hole is not a matrix.
"""

import hashlib
import shutil
import subprocess
import sys
import time
from pathlib import Path

VERSIONS = ("3.11", "3.12", "3.13")
TESTS = ("tests/shared", "tests/frameworks", "tests/conformance")

ROOT = Path(__file__).resolve().parents[2]
# Without dependencies or isolation: everything, hatchling too, is in the locked requirements already.
_EDITABLE = ("--no-deps", "--no-build-isolation", "--offline", "--editable", ".")
# What the environment is made of; when it changes, so must the environment.
_INPUTS = ("pyproject.toml", "requirements/dev.txt")


def find(version: str) -> Path | None:
    """Return a Python of *version* from the PATH, pyenv or uv, in that order, or None."""
    for candidate in (_on_path(version), _of_pyenv(version), _of_uv(version)):
        if candidate is not None and _is_version(candidate, version):
            return candidate
    return None


def _on_path(version: str) -> Path | None:
    found = shutil.which(f"python{version}")
    return Path(found) if found else None


def _of_pyenv(version: str) -> Path | None:
    command = shutil.which("pyenv")
    root = (
        subprocess.run([command, "root"], capture_output=True, text=True, check=False).stdout.strip() if command else ""
    )
    versions = (Path(root) if root else Path.home() / ".pyenv") / "versions"
    found = sorted(versions.glob(f"{version}*/bin/python{version}"))
    return found[-1] if found else None


def _of_uv(version: str) -> Path | None:
    command = [_uv(), "python", "find", version, "--no-python-downloads", "--no-project"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return Path(done.stdout.strip()) if done.returncode == 0 and done.stdout.strip() else None


def _is_version(python: Path, version: str) -> bool:
    # A version manager's shim exists for versions that are not active, and fails when run.
    done = subprocess.run(
        [python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode == 0 and done.stdout.strip() == version


def _uv() -> str:
    return str(Path(sys.executable).with_name("uv"))


def prepare(version: str, python: Path) -> Path:
    """Return the Python of an up-to-date environment for *version*, made if necessary."""
    environment = ROOT / f".venv-{version}"
    ours = environment / "bin" / "python"
    stamp = environment / ".inputs"
    digest = hashlib.sha256(b"".join((ROOT / name).read_bytes() for name in _INPUTS)).hexdigest()
    if not (stamp.exists() and stamp.read_text() == digest and _is_version(ours, version)):
        shutil.rmtree(environment, ignore_errors=True)
        _run("venv", "--no-python-downloads", "--python", str(python), str(environment))
        sync = ("pip", "sync", "--python", str(ours), "--require-hashes", "requirements/dev.txt")
        try:
            _run(*sync)
        except subprocess.CalledProcessError:
            _run(*sync, "--system-certs")  # the network may have an authority that only the system knows
        _run("pip", "install", "--python", str(ours), *_EDITABLE)
        stamp.write_text(digest)
    return ours


def _run(*arguments: str) -> None:
    subprocess.run([_uv(), "--quiet", *arguments], cwd=ROOT, check=True)


def main() -> int:
    tests = [name for name in TESTS if (ROOT / name).is_dir()]
    if not tests:
        _say(f"neither of {', '.join(TESTS)} exists; nothing can be tested")
        return 1
    failed = []
    for version in VERSIONS:
        python = find(version)
        if python is None:
            _say(f"Python {version} is missing: looked for python{version} on the PATH, in pyenv and in uv")
            failed.append(version)
            continue
        started = time.monotonic()
        command = [str(prepare(version, python)), "-m", "pytest", *tests, *sys.argv[1:]]
        status = subprocess.run(command, cwd=ROOT, check=False).returncode
        outcome = "passed" if status == 0 else "FAILED"
        _say(f"Python {version}: {outcome} after {time.monotonic() - started:.0f} s")
        if status != 0:
            failed.append(version)
    if failed:
        _say(f"not passed: {', '.join(failed)}")
    return 1 if failed else 0


def _say(text: str) -> None:
    print(f"test-pythons: {text}", file=sys.stderr, flush=True)  # noqa: T201 - this is a command


if __name__ == "__main__":
    sys.exit(main())
