"""
What is committed: no traces of a machine or a registry, locked requirements, links that lead somewhere.

A file that says where packages come from decides that for everyone who installs it; the installing machine
should.
"""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[2]

# Written in halves, because this file is searched too.
REGISTRY_HOSTS = tuple(
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("maven", "org"),
        ("maven", "apache", "org"),
        ("npmjs", "org"),
        ("golang", "org"),
        ("crates", "io"),
        ("docker", "io"),
        ("ghcr", "io"),
        ("deb", "debian", "org"),
    )
)
MACHINE_PATH = re.compile(r"(?<![\w.:/$}~])/(?:root|home/[a-z]\w*|Users/\w+|mnt/\w+)/")
REQUIREMENTS = sorted((ROOT / "requirements").glob("*.txt"))


def committed() -> list[Path]:
    """Every file that is, or would be, committed; without git (an archive), every file but caches."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        paths = (ROOT / name for name in done.stdout.split("\0") if name)
    else:
        inside = (path.relative_to(ROOT) for path in ROOT.rglob("*"))
        paths = (ROOT / path for path in inside if not any(part.startswith(".") for part in path.parts))
    return sorted(path for path in paths if path.is_file())


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


FILES = committed()
DOCUMENTS = [path for path in FILES if path.suffix == ".md"]


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_no_file_names_a_package_registry() -> None:
    found = [
        f"{relative(path)}: {host}"
        for path in FILES
        for host in REGISTRY_HOSTS
        if re.search(rf"(?<![\w-]){re.escape(host)}(?![\w-])", text_of(path))
    ]
    assert found == []


def test_no_file_names_a_path_of_somebodys_machine() -> None:
    here = {f"{ROOT}/", f"{Path.home()}/"} - {"//"}
    found = [
        relative(path)
        for path in FILES
        if MACHINE_PATH.search(text_of(path)) or any(place in text_of(path) for place in here)
    ]
    assert found == []


def test_no_lock_that_names_hosts_is_committed() -> None:
    assert [relative(path) for path in FILES if re.fullmatch(r"uv\.lock|pylock.*\.toml", path.name)] == []


def test_nobody_is_told_to_install_a_name_that_anyone_could_register() -> None:
    told = re.compile(r"\b(?:pip|uv|pipx) +(?:tool +)?(?:install|add)(?: +-\S+)* +['\"]?tokenry\b|\buvx +tokenry\b")
    assert [relative(path) for path in FILES if told.search(text_of(path))] == []


# --- requirements -----------------------------------------------------------------------------------------


def requirements(path: Path) -> list[str]:
    """The logical lines of a requirements file."""
    lines = re.sub(r"\s*\\\n\s*", " ", text_of(path)).splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#")]


@pytest.mark.parametrize("path", REQUIREMENTS, ids=lambda path: path.name)
def test_every_requirement_is_pinned_and_hashed_and_from_nowhere_in_particular(path: Path) -> None:
    lines = requirements(path)
    assert lines
    for line in lines:
        assert re.match(r"[a-z0-9._-]+==\S+ (?:; .+? )?--hash=sha256:[0-9a-f]{64}\b", line), line


@pytest.mark.parametrize("path", REQUIREMENTS, ids=lambda path: path.name)
def test_no_requirements_file_has_options_or_addresses(path: Path) -> None:
    assert not re.search(r"^\s*-(?:-(?!hash)|[a-z])|://| @ ", text_of(path), re.MULTILINE)


@pytest.mark.parametrize(
    ("name", "extras"), [("dev", ("dev",)), ("runtime", ("issuer", "tokeninfo", "revocation", "cli"))]
)
def test_the_lock_satisfies_what_the_project_declares(name: str, extras: tuple[str, ...]) -> None:
    project = tomllib.loads(text_of(ROOT / "pyproject.toml"))["project"]
    locked: dict[str, list[Version]] = {}
    for line in requirements(ROOT / "requirements" / f"{name}.txt"):
        package, _, version = line.partition(" ")[0].partition("==")
        locked.setdefault(package, []).append(Version(version))
    declared = [*project["dependencies"]]
    wanted, seen = list(extras), set()
    while wanted:
        extra = wanted.pop()
        if extra in seen:
            continue
        seen.add(extra)
        for text in project["optional-dependencies"][extra]:
            requirement = Requirement(text)
            if requirement.name == "tokenry":
                wanted += requirement.extras
            else:
                declared.append(text)
    for text in declared:
        requirement = Requirement(text)
        versions = locked.get(requirement.name.lower(), [])
        assert any(version in requirement.specifier for version in versions), f"{text}: run `make lock`"


# --- Makefile ---------------------------------------------------------------------------------------------


def phony_targets() -> list[str]:
    return re.findall(r"^\.PHONY: (\S+)$", text_of(ROOT / "Makefile"), re.MULTILINE)


def test_make_help_explains_every_target() -> None:
    # Without the directories that an inner make announces when these tests run under make themselves.
    done = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    explained = {line.split()[0] for line in done.stdout.splitlines() if len(line.split()) > 1}
    assert explained == set(phony_targets())


def test_the_documented_targets_are_there() -> None:
    named = set(re.findall(r"`make ([a-z][a-z-]*)", "\n".join(text_of(path) for path in DOCUMENTS)))
    assert named - set(phony_targets()) == set()


# --- documents --------------------------------------------------------------------------------------------

_FENCED = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)(?: \"[^\"]*\")?\)")


def anchors(document: Path) -> set[str]:
    """The anchors of a document's headings, as the common renderers make them."""
    headings = re.findall(r"^#+ +(.+?) *#*$", _FENCED.sub("", text_of(document)), re.MULTILINE)
    plain = (re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", heading) for heading in headings)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("document", DOCUMENTS, ids=relative)
def test_links_inside_the_repository_lead_somewhere(document: Path) -> None:
    broken = []
    for link in _LINK.findall(_FENCED.sub("", text_of(document))):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (document.parent / name).resolve() if name else document
        missing = not target.exists() or ROOT not in (target, *target.parents)
        if missing or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []
