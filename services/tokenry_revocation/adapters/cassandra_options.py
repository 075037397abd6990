"""How the Cassandra store is reached and used: free of the driver, so settings are checked without it."""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from tokenry.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tokenry.secret import Secret

WRITE_CONSISTENCIES: Final = ("LOCAL_QUORUM", "EACH_QUORUM")

# Below, a pause of the machine is a failure; above, a caller waits longer than anybody does.
_SECONDS: Final = (0.1, 10.0)
_KEYSPACE = re.compile(r"[a-z][a-z0-9_]{0,47}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsOptions:
    """
    How to trust the cluster, and to be trusted by it.

    Attributes:
        ca_file: PEM of the authorities to trust; None: those of the system.
        certificate_file: PEM of our certificate, where the cluster asks for one.
        key_file: PEM of its key.
        check_hostname: Whether the certificate must name the node's address as we reach it.
    """

    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None
    check_hostname: bool = True

    def context(self) -> ssl.SSLContext:
        """Return the context; raises OSError for a file that cannot be read."""
        context = ssl.create_default_context(cafile=self.ca_file)
        context.check_hostname = self.check_hostname
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.certificate_file is not None:
            context.load_cert_chain(self.certificate_file, self.key_file)
        return context


@dataclass(frozen=True, slots=True, kw_only=True)
class CassandraOptions:
    """
    Where the cluster is and how it is used.

    Attributes:
        contact_points: Host and port of some nodes.
        keyspace: Lower case, as unquoted CQL names are.
        local_datacenter: Whose nodes coordinate, and whose quorum counts. None: that of the contact points.
        reader_datacenters: All datacentres in which replicas of the service read. With more than one,
            a write needs a quorum in each.
        write_consistency: LOCAL_QUORUM or EACH_QUORUM.
        username: Together with *password*; None: no authentication.
        password: Of *username*.
        tls: None: without.
        request_seconds: How long one statement may take. More rides out longer pauses of a node, at the
            price of a later 503.
        write_seconds: D: how long after its stamp a write may be confirmed; then it is written again under a
            new one. Readers reach back so far, so more costs every read.
        skew_seconds: S: how far a coordinator's clock may be from the others' middle; beyond it appends are
            refused. Readers reach back by twice as much.
    """

    contact_points: tuple[tuple[str, int], ...]
    keyspace: str
    local_datacenter: str | None = None
    reader_datacenters: tuple[str, ...] = ()
    write_consistency: str = "LOCAL_QUORUM"
    username: str | None = None
    password: Secret | None = field(default=None, repr=False)
    tls: TlsOptions | None = None
    request_seconds: float = 2.0
    write_seconds: float = 2.0
    skew_seconds: float = 1.0

    def __post_init__(self) -> None:
        """Check itself; raises ConfigurationError with all faults."""
        faults = tuple(self._faults())
        if faults:
            raise ConfigurationError(faults)

    def _faults(self) -> Sequence[str]:
        several = len(set(self.reader_datacenters)) > 1
        away = self.local_datacenter is not None and not set(self.reader_datacenters) <= {self.local_datacenter}
        rules = {
            "the store has no contact point": bool(self.contact_points),
            "the store's keyspace must be a lower-case CQL name of at most 48 characters": (
                _KEYSPACE.fullmatch(self.keyspace) is not None
            ),
            f"the store's write consistency must be one of {', '.join(WRITE_CONSISTENCIES)}": (
                self.write_consistency in WRITE_CONSISTENCIES
            ),
            "the store is read in another datacentre than it is written in, so its write consistency must be"
            " EACH_QUORUM: with LOCAL_QUORUM the others would see revocations late": (
                self.write_consistency == "EACH_QUORUM" or not (several or away)
            ),
            "the store's user name and password go together": (self.username is None) == (self.password is None),
            "the store's request time must lie between 0.1 and 10 s": _within(_SECONDS, self.request_seconds),
            "the store's write deadline must lie between 0.1 and 10 s": _within(_SECONDS, self.write_seconds),
            "the store's clock skew must lie between 0.1 and 10 s": _within(_SECONDS, self.skew_seconds),
        }
        return [fault for fault, holds in rules.items() if not holds]


def _within(bounds: tuple[float, float], value: float) -> bool:
    least, most = bounds
    return least <= value <= most
