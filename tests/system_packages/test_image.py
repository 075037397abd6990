"""
The Dockerfile's steps outside a container: its RUN lines in a folder, and then the image's root entered with chroot.

No engine is there, so layers, the final USER and the read-only root are not proven. What is: every wheel fits its
hash, the project's wheel installs, and the root that is made of it starts without anything else of this machine.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.support.processes import base_environment

pytestmark = [pytest.mark.system_packages, pytest.mark.processes]

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "deploy/Dockerfile"
# Places of the build stage that the test puts below a folder of its own.
PLACES = ("/build-tools", "/opt/tokenry", "/wheels", "/runtime", "/state")


def instructions():
    """The Dockerfile's instructions by stage, continued lines joined."""
    text = re.sub(r"(?m)^\s*#.*\n", "", DOCKERFILE.read_text()).replace("\\\n", " ")
    stage = None
    for line in filter(None, map(str.strip, text.splitlines())):
        word, _, rest = line.partition(" ")
        if word == "FROM":
            stage = rest.rpartition(" ")[2]
        yield stage, word, rest


class Build:
    """The build stage, below *folder*."""

    def __init__(self, folder):
        self.folder = folder
        self.work = folder / "src"
        self.work.mkdir()

    def run(self):
        for stage, word, rest in instructions():
            if stage == "build" and word == "COPY":
                *sources, target = shlex.split(rest)
                self._copy(sources, target)
            elif stage == "build" and word == "RUN":
                self._run(rest)

    def _copy(self, sources, target):
        for name in sources:
            source = ROOT / name
            place = self.work / target / (source.name if target.endswith("/") else "")
            if source.is_dir():
                shutil.copytree(source, place, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, place)

    def _run(self, line):
        for place in PLACES:
            line = re.sub(rf"(?<![\w/.-]){place}\b", f"{self.folder}{place}", line)
        python = Path(sys.base_prefix) / "bin/python3"
        environ = base_environment({
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            **{name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_", "REQUESTS_"))},
        })  # fmt: skip
        line = re.sub(r"(?<![\w/-])python (?=-m venv|runtime_root)", f"{python} ", line)
        done = subprocess.run(
            ["bash", "-ec", line], cwd=self.work, env=environ, capture_output=True, text=True, check=False, timeout=900
        )
        assert done.returncode == 0, f"{line}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"

    @property
    def runtime(self):
        """The root, with the environment where the image has it."""
        root = self.folder / "runtime"
        built = root / self.folder.relative_to("/") / "opt/tokenry"
        if built.exists():
            (root / "opt").mkdir(exist_ok=True)
            built.rename(root / "opt/tokenry")
        return root


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    build = Build(tmp_path_factory.mktemp("image"))
    build.run()
    return build.runtime


def inside(root, *arguments, **environ):
    """Run the image's interpreter with nothing but the image's root around it."""
    command = [
        shutil.which("chroot", path="/usr/sbin:/usr/bin"),
        "--userspec=65532:65532",
        str(root),
        "/opt/tokenry/bin/python",
        *arguments,
    ]
    return subprocess.run(
        command, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=120
    )


def test_the_root_holds_no_program_but_the_interpreter(root):
    files = [path for path in root.rglob("*") if path.is_file() and not path.is_symlink() and os.access(path, os.X_OK)]
    # Some wheels mark their licence executable; the kernel starts what begins as a program does.
    files = [path for path in files if path.read_bytes()[:4].startswith((b"\x7fELF", b"#!"))]
    programs = {path.relative_to(root).as_posix() for path in files if not re.search(r"\.(so|py)\b", path.name)}
    interpreter = re.escape(Path(os.path.realpath(sys.executable)).relative_to("/").as_posix())
    allowed = re.compile(rf"opt/tokenry/bin/[\w.-]+|{interpreter}|.*/ld-linux[\w.-]+")
    assert [name for name in programs if not allowed.fullmatch(name)] == []
    assert not [path for name in ("sh", "bash", "dash", "busybox", "pip", "apt", "perl") for path in root.rglob(name)]


def test_everything_that_is_installed_came_from_the_lock(root):
    (site,) = root.glob("opt/tokenry/lib/python3.*/site-packages")
    installed = {re.sub(r"[-_.]+", "-", path.name.rsplit("-", 2)[0]).lower() for path in site.glob("*.dist-info")}
    locked = set(re.findall(r"(?m)^([a-z0-9.-]+)==", (ROOT / "requirements/runtime.txt").read_text()))
    assert {name.rsplit("-", 0)[0] for name in installed} - {"tokenry"} <= {re.sub(r"[-_.]+", "-", n) for n in locked}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may enter a root")
def test_the_command_and_each_service_start_in_the_root(root):
    done = inside(root, "-m", "tokenry_cli", "--help")
    assert done.returncode == 0, done.stderr
    for role in ("issuer", "tokeninfo", "revocation"):
        done = inside(root, "-c", f"import sys; sys.argv = ['tokenry', 'serve', '{role}', '--check-settings'];"
                      "from tokenry_cli.__main__ import main; main()")  # fmt: skip
        assert done.returncode == 2, done.stderr
        assert "TOKENRY_ISSUER" in done.stderr, done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may enter a root")
def test_the_drivers_load_and_byte_code_is_there(root):
    drivers = "boto3, cassandra.cluster, uvloop, argon2, awscrt.crypto, bcrypt, cryptography, ssl, sqlite3"
    code = f"import {drivers}, tokenry_issuer.app as app; print(app.__cached__)"
    done = inside(root, "-c", code)
    assert done.returncode == 0, done.stderr
    assert (root / done.stdout.strip().removeprefix("/")).exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may enter a root")
def test_a_shell_cannot_be_started_in_the_root(root):
    done = inside(root, "-c", "import subprocess; subprocess.run('id', shell=True)")
    assert done.returncode == 1
    assert "FileNotFoundError" in done.stderr


def test_the_final_stage_is_made_of_the_build_alone():
    final = [(word, rest) for stage, word, rest in instructions() if stage == "runtime"]
    assert [rest for word, rest in final if word == "FROM"] == ["scratch AS runtime"]
    assert not [rest for word, rest in final if word == "RUN"]
    assert all("--from=build" in rest for word, rest in final if word == "COPY")
    assert sysconfig.get_path("stdlib")  # what runtime_root copies
