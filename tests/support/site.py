"""
The documentation's site: `python -m tests.support.site FOLDER`, or `make site`.

The pages are those of the repository, as they are. What is done to a copy of them: a link to a file that is no page (a
module, a test, something deployed) becomes its name, because the site has pages only; a link that leads nowhere stops
the build. The built site loads nothing from anywhere else: the addresses that the generator's scripts know for the case
of need are taken out, and a policy in each page forbids the rest.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[2]
TOP = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")
SECTIONS = {  # folder to its name, in the order of the navigation
    "docs/library": "Use the library",
    "docs/operations": "Operate the platform",
    "docs/operations/drill-reports": "Reports of drills",
    "docs/runbooks": "Runbooks",
    "docs": "Reference",
    "docs/adr": "Decisions",
}
_LINK = re.compile(r"(?<!!)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s]+)\)")
_TITLE = re.compile(r"^# (.+)$", re.MULTILINE)
_ELSEWHERE = re.compile(rb"https://")
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'none'"
)


class BrokenLink(Exception):
    """A link leads nowhere."""


def pages() -> dict[str, Path]:
    """Return the pages by their place in the repository."""
    top = {name: ROOT / name for name in TOP if (ROOT / name).exists()}
    docs = {path.relative_to(ROOT).as_posix(): path for path in sorted((ROOT / "docs").rglob("*.md"))}
    return {**top, **docs}


def without_source_links(text: str, *, place: str, known: frozenset[str]) -> str:
    """
    Return the page *text* with links to what is no page replaced by their words.

    Raises:
        BrokenLink: A link leads to no file.
    """

    def replaced(match: re.Match[str]) -> str:
        words, target = match.groups()
        if target.startswith(("#", "http://", "https://", "mailto:")):
            return match[0]
        path, _, anchor = target.partition("#")
        found = os.path.normpath((PurePosixPath(place).parent / path).as_posix())
        if f"{found}/README.md" in known:
            found = f"{found}/README.md"
        if found in known:
            page = os.path.relpath(found, PurePosixPath(place).parent)
            return f"[{words}]({page}{'#' + anchor if anchor else ''})"
        if not (ROOT / found).exists():
            raise BrokenLink(f"{place}: {target}")
        return words if "`" in words else f"`{words}`"

    # Every second part is a block of code.
    parts = re.split(r"(^```.*?^```$)", text, flags=re.MULTILINE | re.DOTALL)
    parts[::2] = [_LINK.sub(replaced, part) for part in parts[::2]]
    return "".join(parts)


def navigation(found: dict[str, Path]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return sections with their pages: each folder's README first, then as it names them, then the others."""
    sections: list[tuple[str, list[tuple[str, str]]]] = [
        ("Tokenry", [(title_of(found[name]), name) for name in TOP if name in found])
    ]
    for folder, name in SECTIONS.items():
        inside = [place for place in found if PurePosixPath(place).parent.as_posix() == folder]
        readme = f"{folder}/README.md"
        named = found[readme].read_text() if readme in found else ""

        def order(place: str, readme: str = readme, named: str = named) -> tuple[bool, int, str]:
            position = named.find(f"({PurePosixPath(place).name}")
            return place != readme, position if position >= 0 else len(named), place

        sections.append((name, [(title_of(found[place]), place) for place in sorted(inside, key=order)]))
    return [(name, listed) for name, listed in sections if listed]


def title_of(path: Path) -> str:
    """Return a page's first heading."""
    match = _TITLE.search(path.read_text())
    return match[1].replace("`", "") if match else path.stem


def configuration(found: dict[str, Path]) -> dict[str, object]:
    """Return what the generator is told."""
    return {
        "site_name": "Tokenry",
        "docs_dir": "pages",
        "site_dir": "site",
        "use_directory_urls": False,
        "theme": {"name": "material", "font": False, "features": ["navigation.indexes", "content.code.copy"]},
        "extra": {"generator": False},
        "markdown_extensions": ["tables", "toc", "attr_list", "pymdownx.highlight", "pymdownx.superfences"],
        "nav": [{name: [{title: place} for title, place in listed]} for name, listed in navigation(found)],
    }


def build(folder: Path, found: dict[str, Path] | None = None) -> int:
    """
    Build the site of the pages *found* (default: all) into *folder*, which is replaced; return the number of pages.

    Raises:
        BrokenLink: A link leads nowhere.
        RuntimeError: The generator found a fault; its words are in the message.
    """
    import yaml

    found = pages() if found is None else found
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        for name, path in found.items():
            target = work / "pages" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(without_source_links(path.read_text(), place=name, known=frozenset(found)))
        (work / "mkdocs.yml").write_text(yaml.safe_dump(configuration(found), sort_keys=False))
        generator = Path(sys.executable).with_name("zensical")
        done = subprocess.run(
            [generator, "build", "--strict", "-f", "mkdocs.yml"],
            cwd=work,
            capture_output=True,
            text=True,
            env={"PATH": os.environ["PATH"], "NO_COLOR": "1", "HOME": place},
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr)[-4000:])
        close(work / "site")
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(work / "site", folder)
    return sum(1 for _ in folder.rglob("*.html"))


def close(site: Path) -> None:
    """See to it that the pages in *site* load nothing from anywhere else."""
    for path in files(site, ".js"):
        path.write_bytes(_ELSEWHERE.sub(b"/not-loaded/", path.read_bytes()))
    policy = f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
    for path in files(site, ".html"):
        path.write_text(path.read_text().replace("<head>", f"<head>{policy}", 1))


def files(site: Path, suffix: str) -> Iterator[Path]:
    """Yield the files of *site* with that suffix."""
    yield from sorted(path for path in site.rglob(f"*{suffix}") if path.is_file())


def main() -> None:
    """Build the site into the folder that is named."""
    folder = Path(sys.argv[1])
    try:
        count = build(folder)
    except (BrokenLink, RuntimeError) as error:
        sys.exit(f"site: {error}")
    sys.stdout.write(f"site: {count} pages in {folder}\n")


if __name__ == "__main__":
    main()
