"""
The base of the services' settings: one frozen value, read from a given environment, checked whole at start.

    class Settings(ServiceSettings):
        store_url: Annotated[str, Env("TOKENRY_STORE_URL")] = Field(description="…")
        wait_limit: Duration = Field(25.0, description="Seconds that …; larger: …; smaller: …")

        def contradictions(self) -> Iterator[str]:
            yield from super().contradictions()
            if …:
                yield "TOKENRY_A and TOKENRY_B: …; do …"

    settings = Settings.from_environment(os.environ)         # ConfigurationError with *all* faults

A field `wait_limit` is read from `TOKENRY_WAIT_LIMIT`; `Env(...)` in its annotation gives other names, the
first being the one that is documented. `NAME_FILE` names a file that holds the value. An empty value counts
as absent. Do not use `from __future__ import annotations` in a module that declares settings: pydantic reads
them.

Types: `Duration` (seconds as float; `30s`, `1h10m`, `100ms`, bare seconds), `HttpUrl` (str), `SecretText`
(`tokenry.secret.Secret`), `Names` (tuple of str), `Networks`, and whatever pydantic reads from text.
Texts of faults never repeat a value.
"""

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError, PydanticUndefined

from tokenry.errors import ConfigurationError
from tokenry.secret import Secret
from tokenry.serving.addresses import Network, is_loopback_host, parse_listen_address, parse_networks

PREFIX = "TOKENRY_"
FILE_SUFFIX = "_FILE"
MAX_FILE_BYTES = 65_536  # a secret or a URL; a larger file is the wrong one
MAX_DURATION_SECONDS = 10 * 366 * 86_400.0  # a longer one is a slip of the unit

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_NUMBER = r"[0-9]{1,12}(?:\.[0-9]{1,9})?"
_BARE_SECONDS = re.compile(_NUMBER)
_PART = re.compile(rf"({_NUMBER})(ns|us|µs|ms|s|m|h)")
_TYPO = 0.88  # similarity of names from which an unknown one is taken for a slip of the hand


@dataclass(frozen=True)
class Env:
    """Environment names of a setting: `Annotated[T, Env("TOKENRY_X", "OLD_X")]`; the first is documented."""

    names: tuple[str, ...]

    def __init__(self, *names: str) -> None:
        """Read the setting from *names*; setting two of them is a fault."""
        object.__setattr__(self, "names", names)


def parse_duration(text: str) -> float:
    """
    Return *text* in seconds: `30s`, `1h10m`, `100ms`, `1.5h`, or bare seconds.

    Raises:
        ValueError: It is none of these, or above ten years.
    """
    if _BARE_SECONDS.fullmatch(text):
        seconds = float(text)
    elif text and not _PART.sub("", text):
        seconds = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
    else:
        raise ValueError("write a duration such as 30s, 1h10m, 100ms or bare seconds")
    if seconds > MAX_DURATION_SECONDS:
        raise ValueError("this is more than ten years; check the unit")
    return seconds


def _duration(value: object) -> object:
    return parse_duration(value) if isinstance(value, str) else value


def check_http_url(text: str) -> str:
    """
    Return *text* if it is an absolute http or https URL without user, query or fragment.

    Raises:
        ValueError: It is not.
    """
    try:
        url = urlsplit(text)
        port_is_good = url.port is None or url.port > 0
    except ValueError:
        raise ValueError("write an absolute URL such as https://issuer.example.org") from None
    if url.scheme not in {"http", "https"} or not url.hostname or not port_is_good:
        raise ValueError("write an absolute URL such as https://issuer.example.org")
    if url.username is not None or url.password is not None:
        raise ValueError("a URL carries no user name or password; put credentials into their own settings")
    if url.query or url.fragment or "?" in text or "#" in text or not text.isascii() or re.search(r"\s", text):
        raise ValueError("write the URL without query, fragment, spaces or non-ASCII characters")
    return text


@dataclass(frozen=True)
class _OutgoingUrl:
    """Marks a URL that this service calls: plain http needs a protected network in between."""


def _secret(value: object) -> object:
    return Secret(value) if isinstance(value, str) else value


def _names(value: object) -> object:
    return tuple(value.replace(",", " ").split()) if isinstance(value, str) else value


def _networks(value: object) -> object:
    return parse_networks(value) if isinstance(value, str) else value


def _listen_address(text: str) -> str:
    parse_listen_address(text)
    return text


Duration = Annotated[float, BeforeValidator(_duration), Field(ge=0, allow_inf_nan=False)]
HttpUrl = Annotated[str, AfterValidator(check_http_url), _OutgoingUrl()]
SecretText = Annotated[Secret, BeforeValidator(_secret)]
Names = Annotated[tuple[str, ...], BeforeValidator(_names)]
Networks = Annotated[tuple[Network, ...], BeforeValidator(_networks)]
ListenOn = Annotated[str, AfterValidator(_listen_address)]


def read_setting_file(path: Path) -> str:
    """
    Return the text of the file that a `NAME_FILE` setting names, without its line end.

    Raises:
        ValueError: It cannot be read, is too large, or is not UTF-8.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ValueError(f"the file cannot be read ({error.strerror}); check path and permissions") from None
    if len(content) > MAX_FILE_BYTES:
        raise ValueError(f"the file is larger than {MAX_FILE_BYTES} bytes; is it the right one?")
    try:
        return content.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        raise ValueError("the file is not UTF-8 text") from None


class ServiceSettings(BaseModel):
    """Settings that every service has."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        arbitrary_types_allowed=True,
        hide_input_in_errors=True,
        validate_default=True,
    )

    # Settings beginning with one of these belong to this service alone: an unknown one is always a fault.
    own_prefixes: ClassVar[tuple[str, ...]] = ()

    listen_address: Annotated[ListenOn, Env("TOKENRY_LISTEN_ADDRESS", "LISTEN_ADDRESS")] = Field(
        "127.0.0.1:8080",
        description="Where to listen: host:port, :port (all interfaces), [v6]:port or unix:/path. "
        "Off loopback it needs TLS or TOKENRY_TRUSTED_PROXIES.",
    )
    metrics_listen_address: Annotated[
        ListenOn | None, Env("TOKENRY_METRICS_LISTEN_ADDRESS", "METRICS_LISTEN_ADDRESS")
    ] = Field(
        None,
        description="A second address for /metrics and the health checks; /metrics is then not on the first. "
        "Default: none.",
    )
    tls_certificate_file: Path | None = Field(
        None, description="PEM file with the certificate chain to serve; default: plain HTTP."
    )
    tls_private_key_file: Path | None = Field(None, description="PEM file with the certificate's private key.")
    trusted_proxies: Networks = Field(
        (),
        description="Networks of the reverse proxies in front, such as 10.0.0.0/8: their X-Forwarded-For is "
        "believed, and plain HTTP off loopback is allowed. Too wide: callers choose their own address.",
    )
    tls_client_ca_file: Path | None = Field(
        None,
        description="PEM file with the authorities (or self-signed certificates) by which client certificates are "
        "verified; callers are then asked for one and may leave it out. Default: none is asked for.",
    )
    client_certificate_header: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9-]{1,64}$",
        description="Header field in which the trusted proxies hand on the client certificate, such as Client-Cert; "
        "they must overwrite what callers send. Read from TOKENRY_TRUSTED_PROXIES alone. Default: none.",
    )
    client_certificate_format: Literal["rfc9440", "escaped-pem"] = Field(
        "rfc9440",
        description="How the proxies write it: rfc9440 (Client-Cert), or escaped-pem (nginx's "
        "$ssl_client_escaped_cert).",
    )
    client_certificate_verified: bool = Field(
        False,
        description="The proxies verify the chain of each certificate that they hand on (nginx: ssl_verify_client "
        "optional, not optional_no_ca). Only then a client is known by its certificate's name; by its key always.",
    )
    plain_http_hosts: Names = Field(
        (),
        description="Hosts that may be called by http:// because the network between is protected (a mesh). "
        "Each one added is a host whose keys and lists an attacker on that network could replace.",
    )
    reuse_port: bool = Field(
        False,
        description="Listen with SO_REUSEPORT, so that several processes share the port.",
    )
    event_loop: Literal["auto", "asyncio", "uvloop"] = Field(
        "auto", description="Event loop; auto takes uvloop where it is installed."
    )
    verify_with: Literal["auto", "openssl", "aws-lc"] = Field(
        "auto",
        description="Arithmetic that P-256 signatures are verified with: aws-lc, openssl, or auto, which takes AWS-LC "
        "where awscrt is installed. It takes a fifth less time; openssl is there for the day on which it has a flaw.",
    )
    log_format: Literal["json", "console"] = Field(
        "json", description="json: one JSON object a line on stdout; console: coloured lines for people."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="The least severe level that is written; debug also logs each successful request."
    )
    drain_seconds: Duration = Field(
        5.0,
        description="Seconds between going not-ready and refusing connections on SIGTERM. Larger: slower "
        "stops; smaller than the balancer's check interval: requests lost at each stop. 0 in development.",
    )
    finish_seconds: Duration = Field(
        10.0, description="Seconds that requests in flight may still take after that; then they are cut."
    )
    request_deadline: Duration = Field(
        10.0,
        gt=0,
        description="Seconds after which a request is answered 503 (routes that wait on purpose excepted).",
    )
    max_connections: int = Field(
        10_000,
        ge=1,
        le=1_000_000,
        description="Connections at a time, for each process; further ones are closed at once. Each takes some "
        "10 kB and a file descriptor, so keep it below the limit of open files.",
    )
    head_deadline: Duration = Field(
        10.0,
        gt=0,
        description="Seconds within which the head of a request must have come. Larger: slow attackers hold "
        "connections for longer; smaller: callers on poor lines are cut off.",
    )
    body_deadline: Duration = Field(
        8.0,
        gt=0,
        description="Seconds within which its body must have come; below TOKENRY_REQUEST_DEADLINE to have an "
        "effect. Larger and smaller: as above.",
    )
    send_deadline: Duration = Field(
        60.0,
        gt=0,
        description="Seconds within which a caller must have taken an answer, or 64 KiB more of a large one. "
        "Smaller: poor lines are cut off; larger: callers that do not read hold memory for longer.",
    )
    idle_timeout: Duration = Field(
        75.0,
        gt=0,
        description="Seconds for which a connection without a request is kept. Keep it above that of the "
        "proxies in front, or they will now and then send a request into a connection that is being closed.",
    )
    environment: str = Field(
        "development",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
        description="Name of the environment, such as production: in logs, compared with stored objects "
        "and with what the store of revocations names.",
    )
    instance: str = Field(
        "",
        pattern=r"^[A-Za-z0-9._-]{0,64}$",
        description="Name of this instance, in logs and to the revocation service; default: the host's name.",
    )

    @property
    def takes_client_certificates(self) -> bool:
        """Whether callers can present a certificate at all."""
        return self.tls_client_ca_file is not None or self.client_certificate_header is not None

    @property
    def verifies_client_certificates(self) -> bool:
        """Whether the chain of a certificate is verified, so that its names say something."""
        return self.tls_client_ca_file is not None or (
            self.client_certificate_header is not None and self.client_certificate_verified
        )

    @classmethod
    def from_environment(
        cls, environ: Mapping[str, str], *, read_file: Callable[[Path], str] = read_setting_file
    ) -> Self:
        """
        Return the settings that *environ* holds.

        Raises:
            ConfigurationError: With every fault, each naming the setting, the problem and what to do.
        """
        values, faults = _collect(cls, environ, read_file)
        faults.extend(_misspelt(cls, environ))
        try:
            settings = cls(**values)
        except ValidationError as error:
            faults.extend(_explain(cls, error))
            faults.extend(_contradictions_of_the_rest(cls, values, error))
        if faults:
            raise ConfigurationError(dict.fromkeys(faults))
        return settings

    @model_validator(mode="after")
    def _check_whole(self) -> Self:
        faults = tuple(self.contradictions())
        if faults:
            raise PydanticCustomError("contradictions", "{text}", {"text": "\n".join(faults)})
        return self

    def contradictions(self) -> Iterator[str]:
        """Yield a sentence for each rule between settings that is broken; services extend it."""
        if (self.tls_certificate_file is None) != (self.tls_private_key_file is None):
            yield "TOKENRY_TLS_CERTIFICATE_FILE and TOKENRY_TLS_PRIVATE_KEY_FILE: set both or neither"
        if self.tls_client_ca_file is not None and self.tls_certificate_file is None:
            yield "TOKENRY_TLS_CLIENT_CA_FILE: client certificates need TLS here; set TOKENRY_TLS_CERTIFICATE_FILE"
        if self.client_certificate_header is not None and not self.trusted_proxies:
            yield (
                "TOKENRY_CLIENT_CERTIFICATE_HEADER: anybody could write this field; name the proxies that do in "
                "TOKENRY_TRUSTED_PROXIES"
            )
        local = parse_listen_address(self.listen_address).is_local
        if not local and self.tls_certificate_file is None and not self.trusted_proxies:
            yield (
                "TOKENRY_LISTEN_ADDRESS: plain HTTP off loopback would carry tokens in the clear; name the "
                "proxy network in TOKENRY_TRUSTED_PROXIES, set TOKENRY_TLS_CERTIFICATE_FILE, or "
                "listen on 127.0.0.1"
            )
        for name, field in type(self).model_fields.items():
            if _is_outgoing(field):
                yield from self._check_outgoing(names_of(name, field)[0], getattr(self, name, None))

    def _check_outgoing(self, env: str, value: str | None) -> Iterator[str]:
        url = urlsplit(value or "")
        host = url.hostname or ""
        if url.scheme == "http" and not is_loopback_host(host) and host not in self.plain_http_hosts:
            yield (
                f"{env}: http:// to another host can be read and changed on the way; use https://, or name "
                "the host in TOKENRY_PLAIN_HTTP_HOSTS if the network between is protected"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingDescription:
    """
    One setting, for the documentation and its tests.

    Attributes:
        field: Name of the field.
        name: The environment name that is documented.
        other_names: Further names that are read, such as those of Plan B.
        type: The type in words.
        required: Whether the start fails without it.
        default: The default as one would write it, or None.
        description: Unit, default, and what larger and smaller cost.
        secret: Whether the value is secret.
    """

    field: str
    name: str
    other_names: tuple[str, ...]
    type: str
    required: bool
    default: str | None
    description: str
    secret: bool


def describe(cls: type[ServiceSettings]) -> tuple[SettingDescription, ...]:
    """Return all settings of *cls* in the order of their declaration."""
    return tuple(_describe(name, field) for name, field in cls.model_fields.items())


def _describe(name: str, field: FieldInfo) -> SettingDescription:
    first, *others = names_of(name, field)
    secret = "Secret" in str(field.annotation)
    default = None if field.is_required() else field.get_default(call_default_factory=True)
    return SettingDescription(
        field=name,
        name=first,
        other_names=tuple(others),
        type=_type_name(field),
        required=field.is_required(),
        default=None if default is None or default is PydanticUndefined or secret else _as_text(default),
        description=field.description or "",
        secret=secret,
    )


def _as_text(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _type_name(field: FieldInfo) -> str:
    validators = {getattr(item, "func", None) for item in _metadata(field)}
    for function, name in (
        (_duration, "duration"),
        (check_http_url, "URL"),
        (_secret, "secret"),
        (_names, "names"),
        (_networks, "networks"),
        (_listen_address, "listen address"),
    ):
        if function in validators:
            return name
    annotation: Any = field.annotation
    if str(annotation).startswith("typing.Literal"):
        return " | ".join(map(str, annotation.__args__))
    for python_type, name in (
        (bool, "boolean"),
        (int, "integer"),
        (float, "number"),
        (Path, "path"),
        (str, "text"),
    ):
        if annotation is python_type or python_type in getattr(annotation, "__args__", ()):
            return name
    return getattr(annotation, "__name__", str(annotation))


def _metadata(field: FieldInfo) -> Iterator[object]:
    """Yield what annotates the field, also inside `X | None`."""
    yield from field.metadata
    for argument in getattr(field.annotation, "__args__", ()):
        yield from getattr(argument, "__metadata__", ())


def _is_outgoing(field: FieldInfo) -> bool:
    return any(isinstance(item, _OutgoingUrl) for item in _metadata(field))


def names_of(name: str, field: FieldInfo) -> tuple[str, ...]:
    """Return the environment names of the field *name*."""
    given = [item.names for item in field.metadata if isinstance(item, Env)]
    return given[-1] if given else (PREFIX + name.upper(),)


def _known_names(cls: type[ServiceSettings]) -> dict[str, str]:
    return {env: name for name, field in cls.model_fields.items() for env in names_of(name, field)}


def _collect(
    cls: type[ServiceSettings], environ: Mapping[str, str], read_file: Callable[[Path], str]
) -> tuple[dict[str, Any], list[str]]:
    known = _known_names(cls)
    values: dict[str, Any] = {}
    origin: dict[str, str] = {}
    faults: list[str] = []
    for env, name in known.items():
        for source in (env, env + FILE_SUFFIX):
            text = environ.get(source, "")
            if not text or (source != env and source in known):
                continue
            if name in origin:
                faults.append(f"{origin[name]} and {source} set the same thing; keep one of them")
                continue
            origin[name] = source
            try:
                values[name] = text if source == env else read_file(Path(text))
            except ValueError as error:
                faults.append(f"{source}: {error}")
    return values, faults


def _misspelt(cls: type[ServiceSettings], environ: Mapping[str, str]) -> Iterator[str]:
    known = {*_known_names(cls), *(env + FILE_SUFFIX for env in _known_names(cls))}
    for env in sorted(environ):
        if env in known or not env.startswith(PREFIX):
            continue
        near = difflib.get_close_matches(
            env.removeprefix(PREFIX), [name.removeprefix(PREFIX) for name in sorted(known)], n=1, cutoff=_TYPO
        )
        if near:
            yield f"{env}: there is no such setting; did you mean {_full_name(near[0], known)}?"
        elif env.startswith(cls.own_prefixes or ("\0",)):
            yield f"{env}: there is no such setting; remove it"


def _full_name(name: str, known: Iterable[str]) -> str:
    return PREFIX + name if PREFIX + name in known else name


def _contradictions_of_the_rest(
    cls: type[ServiceSettings], values: Mapping[str, Any], error: ValidationError
) -> Iterator[str]:
    """
    Yield the broken rules between the settings that are good by themselves.

    The model checks its rules only once every field is good; whoever repairs settings wants to hear of both
    at once. A rule about a setting that is faulty anyway is left out.
    """
    bad = {str(fault["loc"][0]) for fault in error.errors() if fault["loc"]}
    if not bad:
        return  # the rules were checked: they are the faults
    good: dict[str, Any] = {
        name: _validated(field, values[name])
        for name, field in cls.model_fields.items()
        if name in values and name not in bad
    }
    bad_names = {env for name in bad for env in names_of(name, cls.model_fields[name])}
    with suppress(AttributeError):  # a rule about a required setting that is missing
        for fault in cls.model_construct(**good).contradictions():
            if not any(env in fault for env in bad_names):
                yield fault


def _validated(field: FieldInfo, value: object) -> object:
    annotated: Any = Annotated[(field.annotation, None, *field.metadata)]  # metadata may be empty
    return TypeAdapter(annotated, config=ConfigDict(arbitrary_types_allowed=True)).validate_python(value)


def _explain(cls: type[ServiceSettings], error: ValidationError) -> Iterator[str]:
    for fault in error.errors(include_input=False, include_url=False, include_context=False):
        if not fault["loc"]:
            yield from fault["msg"].split("\n")
            continue
        field = str(fault["loc"][0])
        env = names_of(field, cls.model_fields[field])[0]
        if fault["type"] == "missing":
            yield f"{env}: is not set; {cls.model_fields[field].description or 'set it'}"
        else:
            yield f"{env}: {fault['msg'].removeprefix('Value error, ')}"
