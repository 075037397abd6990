"""Rule objects in a folder of the same layout as the credentials' bucket."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokenry_revocation.authorization import MAX_RULE_BYTES
from tokenry_revocation.rules import FOLDER, SUFFIX, RulesUnavailable

if TYPE_CHECKING:
    from pathlib import Path


class RulesDirectory:
    """The rules of one folder; a folder that is not there has none."""

    def __init__(self, root: Path, *, folder: str = FOLDER) -> None:
        """Look below *root* for the *folder* of the rules, or of other objects of that form."""
        self._folder = root / folder

    def list(self) -> dict[str, str]:
        """Return the names of the rules, each with the time and size of its file."""
        try:
            if not self._folder.exists():
                return {}
            files = sorted(self._folder.glob(f"*{SUFFIX}"))
            return {file.name.removesuffix(SUFFIX): _tag(file) for file in files if file.is_file()}
        except OSError as error:
            raise RulesUnavailable(f"the folder of the rules cannot be read ({error.strerror})") from None

    def get(self, name: str) -> bytes:
        """Return the file of the rule *name*; one byte more than allowed shows that it is too long."""
        try:
            with (self._folder / f"{name}{SUFFIX}").open("rb") as file:
                return file.read(MAX_RULE_BYTES + 1)
        except OSError as error:
            raise RulesUnavailable(f"a rule cannot be read ({error.strerror})") from None


def _tag(file: Path) -> str:
    status = file.stat()
    return f"{status.st_mtime_ns}-{status.st_size}-{status.st_ino}"
