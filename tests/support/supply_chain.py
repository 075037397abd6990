"""
What we are made of, from the locked requirements alone: a bill of materials, and an audit that needs no network.

    python -m tests.support.supply_chain sbom OUTPUT
    python -m tests.support.supply_chain audit DATABASE

The bill is CycloneDX 1.5 (JSON), the same bytes for the same locked requirements. The database is a folder with
advisories in the OSV format (JSON), as the advisory databases export them; the audit ends with 1 when a locked version
is affected by one, and with 2 when there is nothing to audit against: an audit that read no advisory has found nothing
out.
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ROOT: Final = Path(__file__).parents[2]
RUNTIME: Final = ROOT / "requirements" / "runtime.txt"
ECOSYSTEM: Final = "PyPI"
CLEAN, AFFECTED, UNUSABLE = 0, 1, 2
_NAMESPACE: Final = uuid.UUID("5f0f6d2e-9c0b-4c57-8f0e-6f0d6f6b7a31")  # of our bills; drawn once


@dataclass(frozen=True, slots=True, kw_only=True)
class Locked:
    """One locked requirement."""

    name: str
    version: str
    marker: str | None
    hashes: tuple[str, ...]

    @property
    def purl(self) -> str:
        """The package URL."""
        return f"pkg:pypi/{self.name}@{self.version}"


def locked(text: str) -> list[Locked]:
    """Return the requirements of a locked file, by name."""
    found = []
    for entry in re.sub(r"\\\n", " ", text).splitlines():
        if not entry.strip() or entry.startswith("#"):
            continue
        requirement = Requirement(entry.partition(" --hash=")[0].strip())
        found.append(
            Locked(
                name=canonicalize_name(requirement.name),
                version=next(iter(requirement.specifier)).version,
                marker=str(requirement.marker) if requirement.marker else None,
                hashes=tuple(sorted(re.findall(r"--hash=sha256:([0-9a-f]{64})", entry))),
            )
        )
    return sorted(found, key=lambda each: (each.name, each.version))


def bill(requirements: Iterable[Locked], *, version: str) -> dict[str, Any]:
    """Return the bill of materials of our *version* with *requirements*, as CycloneDX."""
    ours = f"pkg:pypi/tokenry@{version}"
    components = [_component(each) for each in requirements]
    content = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "component": {"type": "application", "bom-ref": ours, "name": "tokenry", "version": version, "purl": ours},
        },
        "components": components,
        "dependencies": [{"ref": ours, "dependsOn": [each["bom-ref"] for each in components]}],
    }
    # Named after its content, so that two bills are the same exactly when they say the same.
    serial = uuid.uuid5(_NAMESPACE, json.dumps(content, sort_keys=True))
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.5.schema.json",
        **content,
        "serialNumber": f"urn:uuid:{serial}",
    }


def _component(each: Locked) -> dict[str, Any]:
    component: dict[str, Any] = {
        "type": "library",
        "bom-ref": each.purl,
        "name": each.name,
        "version": each.version,
        "purl": each.purl,
        # One for each file that may be installed: which one it is depends on the machine.
        "hashes": [{"alg": "SHA-256", "content": text} for text in each.hashes],
    }
    if each.marker:
        component["properties"] = [{"name": "tokenry:marker", "value": each.marker}]
    return component


def advisories(folder: Path) -> Iterator[dict[str, Any]]:
    """
    Yield every advisory below *folder* that was not withdrawn.

    Raises:
        ValueError: A file is no advisory.
    """
    for path in sorted(folder.rglob("*.json")):
        advisory = json.loads(path.read_bytes())
        if not isinstance(advisory, dict) or "id" not in advisory or not isinstance(advisory.get("affected"), list):
            raise ValueError(f"{path} is no advisory in the OSV format")
        if not advisory.get("withdrawn"):
            yield advisory


def findings(requirements: Iterable[Locked], found: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Yield a line for each requirement that an advisory of *found* affects."""
    by_name: dict[str, list[Locked]] = {}
    for each in requirements:
        by_name.setdefault(each.name, []).append(each)
    for advisory in found:
        for affected in advisory["affected"]:
            package = affected.get("package", {})
            if package.get("ecosystem") != ECOSYSTEM:
                continue
            for each in by_name.get(canonicalize_name(str(package.get("name", ""))), ()):
                if is_affected(each.version, affected):
                    summary = advisory.get("summary") or advisory.get("details", "")[:100]
                    yield f"{each.name} {each.version}: {advisory['id']}: {summary}"


def is_affected(version: str, affected: dict[str, Any]) -> bool:
    """Tell whether *version* is among the versions or in the ranges that an advisory names."""
    if version in affected.get("versions", ()):
        return True
    ranges = [each for each in affected.get("ranges", ()) if each.get("type") == "ECOSYSTEM"]
    return any(_in_range(Version(version), each.get("events", ())) for each in ranges)


def _in_range(version: Version, events: Iterable[dict[str, str]]) -> bool:
    inside = False
    for event in sorted(events, key=_moment):
        (kind, text), *_ = event.items()
        at = _version(text)
        if kind == "introduced" and version >= at:
            inside = True
        if (kind == "fixed" and version >= at) or (kind == "last_affected" and version > at):
            inside = False
    return inside


def _moment(event: dict[str, str]) -> tuple[Version, bool]:
    (kind, text), *_ = event.items()
    return _version(text), kind != "introduced"


def _version(text: str) -> Version:
    try:
        return Version("0.dev0" if text == "0" else text)
    except InvalidVersion:
        return Version("0.dev0")  # what cannot be compared counts as everything: a false alarm is looked at


def main(arguments: list[str]) -> int:
    """Run one of the two commands."""
    requirements = locked(RUNTIME.read_text())
    match arguments:
        case ["sbom", output]:
            version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
            Path(output).parent.mkdir(parents=True, exist_ok=True)
            Path(output).write_text(json.dumps(bill(requirements, version=version), indent=2) + "\n")
            sys.stdout.write(f"sbom: {len(requirements)} components in {output}\n")
            return CLEAN
        case ["audit", database]:
            return _audit(requirements, Path(database))
        case _:
            sys.stderr.write(f"{__doc__}\n")
            return UNUSABLE


def _audit(requirements: list[Locked], database: Path) -> int:
    try:
        read = list(advisories(database))
    except (OSError, ValueError) as error:
        sys.stderr.write(f"audit: {error}\n")
        return UNUSABLE
    if not read:
        sys.stderr.write(f"audit: there is no advisory in {database}: nothing was found out\n")
        return UNUSABLE
    lines = list(findings(requirements, read))
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.write(f"audit: {len(requirements)} packages, {len(read)} advisories, {len(lines)} findings\n")
    return AFFECTED if lines else CLEAN


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
