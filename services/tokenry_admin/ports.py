"""What administration needs besides the registry: the place from which applications get their own credentials."""

from __future__ import annotations

from typing import Protocol

from tokenry.errors import TokenryError


class FilesUnavailable(TokenryError):
    """
    The place of the applications' credentials does not do what was asked.

    Attributes:
        code: A short word for metrics and logs.
    """

    def __init__(self, place: str, code: str) -> None:
        """Say that *place* failed with *code*."""
        self.code = code
        super().__init__(f"the applications' credentials in {place} cannot be written ({code})")


class ApplicationFiles(Protocol):
    """
    Files of applications, such as `client.json`: written whole, never half.

    The writer need not be able to read them (Plan B's rotator is not).
    """

    async def probe(self, application: str) -> None:
        """
        See that files of *application* can be written, by writing one that nobody reads.

        Raises:
            FilesUnavailable: They cannot.
        """
        ...

    async def put(self, application: str, name: str, body: bytes) -> None:
        """
        Write the file *name* of *application*, over the one that is there.

        Raises:
            FilesUnavailable: It is not known whether it was written.
        """
        ...

    async def close(self) -> None:
        """Let go of threads and connections."""
        ...
