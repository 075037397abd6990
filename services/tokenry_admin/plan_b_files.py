"""
The files that applications get their credentials from, in the form that Plan B's libraries read.

    <application>/client.json      {"client_id":"…","client_secret":"…"}
    <application>/user.json        {"application_username":"…","application_password":"…"}
    <application>/test-mint-write  {"status":"SUCCESS"}: written before each rotation, to see that the others can be
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final

from tokenry.errors import ProtocolError
from tokenry_registry.realms import ObjectKind

if TYPE_CHECKING:
    from tokenry.secret import Secret

PROBE_NAME: Final = "test-mint-write"
PROBE_BODY: Final = b'{"status":"SUCCESS"}'
_FORMS: Final = {
    ObjectKind.CLIENT: ("client.json", "client_id", "client_secret"),
    ObjectKind.USER: ("user.json", "application_username", "application_password"),
}
_APPLICATION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def credential_file(kind: ObjectKind, name: str, secret: Secret) -> tuple[str, bytes]:
    """Return name and content of the file that gives an application the *secret* of a client or user *name*."""
    file, id_member, secret_member = _FORMS[kind]
    return file, json.dumps({id_member: name, secret_member: secret.reveal()}, separators=(",", ":")).encode("utf-8")


def check_application(name: str) -> str:
    """
    Return *name* if it can be the id of an application: a folder's name without surprises.

    Raises:
        ProtocolError: It cannot.
    """
    if not _APPLICATION.fullmatch(name):
        raise ProtocolError("an application id is letters, digits, '.', '_' and '-', at most 128, the first no sign")
    return name
