"""What the command line writes down about its own writes: a file of this machine, if TOKENRY_AUDIT_FILE names one."""

from __future__ import annotations

import getpass
import socket
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tokenry.serving.audit_sink import chain_name
from tokenry_admin.adapters.audit_file import AuditFile
from tokenry_admin.audit import AuditLog

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tokenry.clock import Clock

AUDIT_FILE: Final = "TOKENRY_AUDIT_FILE"


def operator() -> dict[str, Any]:
    """Return who writes, as this machine names them: whoever may write to the file may say what they like."""
    try:
        return {"operator": getpass.getuser()}
    except (OSError, KeyError):  # a container's user without a name
        return {"operator": "unknown"}


@contextmanager
def audited(environ: Mapping[str, str], *, clock: Clock, dry_run: bool = False) -> Iterator[AuditLog]:
    """
    Give what notes the writes of this command; without the setting, and with *dry_run*, they are not noted.

    The store's own log (CloudTrail) says who wrote what with which rights; this one says what was meant by it.

    Raises:
        ConfigurationError: The file cannot be written: nothing was done yet.
    """
    path = environ.get(AUDIT_FILE)
    if not path or dry_run:
        yield AuditLog(lambda _event, _fields: None)
        return
    file = AuditFile(Path(path), instance=chain_name(socket.gethostname()), clock=clock)
    try:
        yield AuditLog(file)
    finally:
        file.close()
