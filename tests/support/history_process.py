"""
One process of the platform under test, with a clock that the test can turn and a way to the store that it can break.

    python -m tests.support.history_process revocation --clock FILE [--store-network 127.0.11]
    python -m tests.support.history_process library --clock FILE --library '{"issuer": …}'

The services are composed by their own composition roots, which are given another clock; there is no setting for that.
`library` is a program with the library inside: a validator behind a socket that answers one line of JSON for each line.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import mmap
import os
import struct
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tokenry.clock import SystemClock
from tokenry.errors import InvalidToken, ValidatorNotReady
from tokenry.serving.server import command
from tokenry.token_validator import TokenValidator
from tokenry.validation.policy import ANY_AUDIENCE
from tokenry.validation.validator import RevokedToken

if TYPE_CHECKING:
    from collections.abc import Sequence

_OFFSET: Final = struct.Struct("<d")
_MAX_LINE: Final = 1 << 17


class SteppedClock(SystemClock):
    """The machine's clock, and so many seconds more as stand in a file that another process writes."""

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._offset = mmap.mmap(file.fileno(), _OFFSET.size)

    def now(self) -> float:
        """Return what this machine would say if its clock were off."""
        return super().now() + float(_OFFSET.unpack_from(self._offset)[0])


def write_offset(path: Path, seconds: float) -> None:
    """Turn the clock that reads *path*; makes the file where there is none."""
    with path.open("r+b" if path.exists() else "w+b") as file:
        file.write(_OFFSET.pack(seconds))


class _Translator:
    """Sends the driver to the same node by way of another network, where the test's proxies listen."""

    def __init__(self, network: str) -> None:
        self._network = network

    def translate(self, address: str) -> str:
        return f"{self._network}.{address.rpartition('.')[2]}"


def _serve(role: str, clock: SteppedClock) -> int:
    root: Any
    match role:
        case "revocation":
            from tokenry_revocation import __main__ as root

            settings = root.CheckedSettings
        case "issuer":
            from tokenry_issuer import __main__ as root
            from tokenry_issuer.settings import Settings as settings  # noqa: N813
        case _:
            from tokenry_tokeninfo import __main__ as root
            from tokenry_tokeninfo.settings import Settings as settings  # noqa: N813
    return command([], os.environ, service=role, settings_class=settings, compose=partial(root.compose, clock=clock))


# --- a program with the library in it -------------------------------------------------------------------------------


def judge(validator: TokenValidator, text: str) -> dict[str, Any]:
    """Return what *validator* says of a token, and by which list."""
    # The list is looked at first: the judgement may come from a later one, never from an earlier one.
    state = validator.stats()
    said: dict[str, Any] = {"ready": state["ready"], "epoch": state["list_epoch"], "as_of": state["list_as_of"]}
    try:
        validator.validate(text)
    except RevokedToken:
        return said | {"result": "revoked"}
    except InvalidToken as error:
        return said | {"result": "invalid", "reason": str(error.reason)}
    except ValidatorNotReady as error:
        return said | {"result": "unavailable", "reason": str(error)}
    return said | {"result": "accept"}


async def _library(options: dict[str, Any], clock: SteppedClock) -> None:
    host, port = options.pop("listen")
    validator = TokenValidator(audience=ANY_AUDIENCE, clock=clock, **options)
    validator.start()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                writer.write(json.dumps(judge(validator, line.decode().rstrip("\n"))).encode() + b"\n")
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, host, port, limit=_MAX_LINE)
    await server.serve_forever()


def main(argv: Sequence[str]) -> int:
    """Run one process until it is ended."""
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=("issuer", "revocation", "tokeninfo", "library"))
    parser.add_argument("--clock", type=Path, required=True)
    parser.add_argument("--store-network")
    parser.add_argument("--library", type=json.loads)
    options = parser.parse_args(argv)
    clock = SteppedClock(options.clock)
    if options.store_network is not None:
        from cassandra.cluster import Cluster

        Cluster.address_translator = _Translator(options.store_network)
    if options.role != "library":
        return _serve(options.role, clock)
    asyncio.run(_library(options.library, clock))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
