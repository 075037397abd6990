"""
The envelope key of the issuer: a file that nobody but its owner, and a group of its own, may read.

A group may read it because what hands secrets to processes works that way: the files of a Kubernetes Secret belong to
root and the pod's `fsGroup` (0440), those of systemd's LoadCredential= show a group. Nobody may write it but its owner.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from tokenry.errors import ConfigurationError, ProtocolError
from tokenry.jose.sealing import EnvelopeKey

if TYPE_CHECKING:
    from pathlib import Path

_TOO_OPEN = 0o037
MAX_FILE_BYTES = 256  # 43 characters and a line end, with room


def read_envelope_key(path: Path) -> EnvelopeKey:
    """
    Return the envelope key in the file *path*: 32 bytes in base64url without padding.

    Raises:
        ConfigurationError: The file cannot be read, others may read it, a group may write it, or it holds something
            else.
    """
    name = f"TOKENRY_ENVELOPE_KEY_FILE: {path}"
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigurationError([f"{name} cannot be read ({error.strerror})"]) from None
    if mode & _TOO_OPEN:
        raise ConfigurationError(
            [f"{name} may be read by others, or written by a group (mode {mode:04o}): chmod 600 it, or 440"]
        )
    try:
        return EnvelopeKey.from_text(content[:MAX_FILE_BYTES].decode("ascii"))
    except (ProtocolError, UnicodeDecodeError):
        raise ConfigurationError([f"{name} is no envelope key: 32 bytes in base64url without padding"]) from None
