"""The `Tokenry-List` header: which list an answer was made from, and how old that list was."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final

from tokenry.errors import ProtocolError

LIST_HEADER: Final = "Tokenry-List"

_NAMES: Final = ("epoch", "as_of", "age", "seq")
_WHOLE = re.compile(r"0|[1-9][0-9]{0,15}")  # below 2**53
_DECIMAL = re.compile(r"(?:0|[1-9][0-9]{0,10})(?:\.[0-9]{1,6})?")
_SEPARATOR = re.compile(r",[ \t]*")
_MAX_CHARACTERS: Final = 256  # four short members take 80


@dataclass(frozen=True, slots=True, kw_only=True)
class ListStamp:
    """
    The age of a list.

    Attributes:
        as_of: Unix seconds up to which every acknowledged revocation is contained.
        age: Seconds that had passed since *as_of* when the answer was written, on one clock.
        epoch: Which store it comes from; None in answers about a token.
        seq: Number of the signed list that it came from, if it did.

    Raises:
        ProtocolError: A number is negative, not finite or too large.
    """

    as_of: float
    age: float
    epoch: int | None = None
    seq: int | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be written."""
        for seconds in (self.as_of, self.age):
            if not math.isfinite(seconds) or not 0 <= seconds < 10**11:
                raise ProtocolError("as_of and age are seconds, not negative")
        for number in (self.epoch, self.seq):
            if number is not None and not 0 <= number < 10**16:
                raise ProtocolError("epoch and seq are whole numbers, not negative")

    @classmethod
    def parse(cls, text: str, *, with_epoch: bool = True) -> ListStamp:
        """
        Read the header's value.

        Args:
            text: As received.
            with_epoch: Whether an epoch must be there, as in every answer that is a list.

        Raises:
            ProtocolError: A member is missing, unknown, there twice, or not a number in plain form.
        """
        if len(text) > _MAX_CHARACTERS:
            raise ProtocolError("the list's stamp is too long")
        members: dict[str, str] = {}
        for part in _SEPARATOR.split(text.strip(" \t")):
            name, equals, value = part.partition("=")
            if not equals or name not in _NAMES or name in members:
                raise ProtocolError("a member of the list's stamp is unknown or there twice")
            members[name] = value
        if not members.keys() >= ({"epoch", "as_of", "age"} if with_epoch else {"as_of", "age"}):
            raise ProtocolError("a member of the list's stamp is missing")
        return cls(
            as_of=_decimal(members["as_of"]),
            age=_decimal(members["age"]),
            epoch=_whole(members["epoch"]) if "epoch" in members else None,
            seq=_whole(members["seq"]) if "seq" in members else None,
        )

    def format(self) -> str:
        """
        Return the header's value.

        *as_of* is cut to the millisecond before and *age* to the one after: never younger than it is.
        """
        parts = [] if self.epoch is None else [f"epoch={self.epoch}"]
        parts += [
            f"as_of={_milliseconds(math.floor(self.as_of * 1000))}",
            f"age={_milliseconds(math.ceil(self.age * 1000))}",
        ]
        if self.seq is not None:
            parts.append(f"seq={self.seq}")
        return ", ".join(parts)


def _milliseconds(number: int) -> str:
    return f"{number // 1000}.{number % 1000:03d}"


def _whole(text: str) -> int:
    if _WHOLE.fullmatch(text) is None:
        raise ProtocolError("a number of the list's stamp is not in plain form")
    return int(text)


def _decimal(text: str) -> float:
    if _DECIMAL.fullmatch(text) is None:
        raise ProtocolError("a number of the list's stamp is not in plain form")
    return float(text)
