"""The environment of a command, as the settings of one service see it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokenry.serving.settings import FILE_SUFFIX, describe

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tokenry.serving.settings import ServiceSettings


def known_to(cls: type[ServiceSettings], environ: Mapping[str, str]) -> dict[str, str]:
    """Return what *cls* reads of *environ*: where a command runs, several services share one environment."""
    names = {name for setting in describe(cls) for name in (setting.name, *setting.other_names)}
    return {name: value for name, value in environ.items() if name in names or name.removesuffix(FILE_SUFFIX) in names}
