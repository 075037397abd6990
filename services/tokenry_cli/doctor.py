"""
`tokenry doctor`: what a service would find that is started here, with this environment; each line says what to do.

Nothing secret is printed: of settings their names, of tokens how long they live.
"""

from __future__ import annotations

import math
import os
import socket
import ssl
import sys
from dataclasses import asdict, dataclass
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import urlsplit

import typer
from rich.table import Table

from tokenry.client.advice import advice_on
from tokenry.client.default import Kind, choose, default_source
from tokenry.clock import Clock, SystemClock
from tokenry.errors import ProtocolError, TokenFetchError, TokenryError, ValidatorNotReady
from tokenry.http.fetch import Fetcher, HttpFetcher, Request, Response
from tokenry.jose.jwks import KeySet
from tokenry.sources.metadata import MAX_METADATA_BYTES, IssuerMetadata, metadata_urls, parse_metadata
from tokenry.token_validator import TokenValidator
from tokenry.validation.policy import ANY_AUDIENCE
from tokenry_cli.context import find_context, load_context
from tokenry_cli.output import ExitCode, Format, data, escape, fail, moment, show
from tokenry_cli.token import ContextFile, Output

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tokenry.client.access_token import AccessToken, TokenSource

PREFIXES: Final = ("TOKENRY_", "OAUTH2_", "CREDENTIALS_DIR")
SKEW_WARN_SECONDS: Final = 2.0
SKEW_WRONG_SECONDS: Final = 5.0  # what the platform allows between any two clocks
LIST_WARN_SECONDS: Final = 120.0
CERTIFICATE_WARN_DAYS: Final = 14
READY_SECONDS: Final = 10.0
CONNECT_SECONDS: Final = 5.0
_DAY: Final = 86_400
_OK: Final = 200


class State(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARNING = "warning"
    WRONG = "wrong"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """
    What one check found.

    Attributes:
        check: Its name.
        state: How it ended.
        found: What is so.
        advice: What to do; empty where nothing is to be done.
    """

    check: str
    state: State
    found: str
    advice: str = ""


class Doctor:
    """
    Looks at an environment as the library would.

    Args:
        environ: The environment.
        scope: Scopes to ask a token for.
        name: Name of the token or client, as for `default_source`.
        fetcher: Performs the requests.
        clock: Where the time comes from.
        certificate_end: Returns the end (Unix seconds) of the certificate of host and port.
        ready_seconds: How long to wait for keys and list.
        allow_plain_http: Speak unencrypted HTTP to other machines, as a service would that is told to.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        *,
        scope: str = "",
        name: str | None = None,
        fetcher: Fetcher | None = None,
        clock: Clock | None = None,
        certificate_end: Callable[[str, int], float] | None = None,
        ready_seconds: float = READY_SECONDS,
        allow_plain_http: bool = False,
    ) -> None:
        """Look at nothing yet."""
        self._environ, self._scope, self._name = environ, scope, name
        self._plain = allow_plain_http
        self._fetcher = fetcher or HttpFetcher(allow_plain_http=allow_plain_http)
        self._given_fetcher = fetcher
        self._clock = clock or SystemClock()
        self._certificate_end = certificate_end or certificate_end_of
        self._ready_seconds = ready_seconds
        self._source: TokenSource | None = None
        self._token: AccessToken | None = None
        self._metadata: IssuerMetadata | None = None

    def findings(self) -> Iterator[Finding]:
        """Yield what each check found, in the order in which a service would come upon it."""
        yield self._settings()
        yield self._chosen()
        yield from self._issuer()
        yield self._keys()
        yield self._fetched()
        yield self._list()
        yield from self._services()
        yield from self._certificates()

    # --- the environment ---

    def _settings(self) -> Finding:
        known = sorted(name for name in self._environ if name.startswith(PREFIXES))
        if not known:
            advice = "set TOKENRY_ISSUER and TOKENRY_CLIENT_ID with TOKENRY_CLIENT_SECRET_FILE, or use --context FILE"
            return Finding("environment", State.WRONG, "no setting of tokenry is there", advice)
        empty = [name for name in known if not self._environ[name].strip()]
        if empty:
            return Finding("environment", State.WRONG, f"empty: {', '.join(empty)}", "give them a value, or unset them")
        missing = [name for name in known if name.endswith("_FILE") and not os.access(self._environ[name], os.R_OK)]
        if missing:
            advice = "mount the file, or let this user read it"
            return Finding("environment", State.WRONG, f"not readable: {', '.join(missing)}", advice)
        return Finding("environment", State.OK, ", ".join(known))

    def _chosen(self) -> Finding:
        try:
            kind, why = choose(self._environ, self._name)
            self._source = default_source(self._scope, name=self._name, environ=self._environ, **self._more(kind))
        except TokenryError as error:
            return Finding(
                "token source", State.WRONG, str(error), "see docs/library/call-a-service.md for the choices"
            )
        described = getattr(self._source, "description", "")
        return Finding("token source", State.OK, f"{kind} ({described}), because {why}")

    def _more(self, kind: Kind) -> dict[str, Any]:
        if kind not in {Kind.CLIENT, Kind.MOUNTED_CLIENT}:
            return {}
        fetcher = {} if self._given_fetcher is None else {"fetcher": self._given_fetcher}
        return {"clock": self._clock, "allow_plain_http": self._plain, **fetcher}

    # --- the issuer ---

    def _issuer(self) -> Iterator[Finding]:
        issuer = self._environ.get("TOKENRY_ISSUER")
        if not issuer:
            yield Finding("issuer", State.WARNING, "TOKENRY_ISSUER is not set", "set it: services that judge need it")
            return
        statuses = []
        try:
            for url in metadata_urls(issuer):
                began = self._clock.now()
                response = self._fetcher.fetch(Request(url=url, max_bytes=MAX_METADATA_BYTES))
                ended = self._clock.now()
                statuses.append(str(response.status))
                if response.status == _OK:
                    yield self._named(response, issuer)
                    yield self._skew(response, began=began, ended=ended)
                    return
        except TokenryError as error:
            advice = "check the address, the network policy and the issuer's /readyz"
            yield Finding("issuer", State.WRONG, f"{issuer}: {error}", advice)
            return
        found = f"{issuer} answers {' and '.join(statuses)} for its metadata"
        yield Finding("issuer", State.WRONG, found, "check that TOKENRY_ISSUER is the issuer identifier, path and all")

    def _named(self, response: Response, issuer: str) -> Finding:
        try:
            self._metadata = parse_metadata(response.body, issuer=issuer)
        except ProtocolError as error:
            advice = "TOKENRY_ISSUER must be, byte for byte, the issuer in the metadata (no slash more or less)"
            return Finding("issuer", State.WRONG, f"{issuer}: {error}", advice)
        return Finding("issuer", State.OK, f"{issuer} is reachable, and is who it says")

    def _skew(self, response: Response, *, began: float, ended: float) -> Finding:
        try:
            said = parsedate_to_datetime(response.headers.get("date", "")).timestamp()
        except (TypeError, ValueError):
            return Finding("clock", State.SKIPPED, "the issuer's answer has no Date")
        # It names the second that has begun.
        ahead = max(0.0, began - (said + 1.0)) - max(0.0, said - ended)
        found = (
            f"{abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'} the issuer's" if ahead else "as the issuer's"
        )
        if abs(ahead) > SKEW_WRONG_SECONDS:
            advice = "repair the time synchronisation of this machine, or of the issuer's"
            return Finding("clock", State.WRONG, found, advice)
        state = State.WARNING if abs(ahead) > SKEW_WARN_SECONDS else State.OK
        return Finding("clock", state, found, "look at the time synchronisation" if state is State.WARNING else "")

    def _keys(self) -> Finding:
        if self._metadata is None or self._metadata.jwks_uri is None:
            return Finding("keys", State.SKIPPED, "the metadata name no jwks_uri" if self._metadata else "no metadata")
        advice = "check the issuer: it publishes keys once it is ready"
        try:
            response = self._fetcher.fetch(Request(url=self._metadata.jwks_uri))
            keys = KeySet.parse(response.body, issuer=self._metadata.issuer)
        except TokenryError as error:
            return Finding("keys", State.WRONG, f"{self._metadata.jwks_uri}: {error}", advice)
        if response.status != _OK or not len(keys):
            return Finding("keys", State.WRONG, f"status {response.status}, {len(keys)} keys that we use", advice)
        return Finding("keys", State.OK, f"{len(keys)} keys")

    def _fetched(self) -> Finding:
        if self._source is None:
            return Finding("token", State.SKIPPED, "there is no source")
        try:
            self._token = self._source.get()
        except TokenFetchError as error:
            return Finding(
                "token",
                State.WRONG,
                str(error),
                advice_on(error.error) or "see docs/library/errors.md for what this error means",
            )
        left = self._token.expires_at - self._clock.now()
        if not math.isfinite(left):
            return Finding("token", State.OK, "one is there; nobody says how long it lives")
        if left <= 0:
            return Finding("token", State.WRONG, "the one that is there has expired", "replace it where it comes from")
        return Finding(
            "token", State.OK, f"one was given, for {left:.0f} s, scope: {' '.join(sorted(self._token.scope))}"
        )

    def _list(self) -> Finding:
        issuer, revocations = self._environ.get("TOKENRY_ISSUER"), self._environ.get("TOKENRY_REVOCATION_URL")
        if self._metadata is None or issuer is None:
            return Finding("revocation list", State.SKIPPED, "no metadata")
        if revocations is None and self._metadata.revocation_list_uri is None:
            advice = "an issuer of others: give TokenValidator(revocations_url=…), or rely on short tokens"
            return Finding("revocation list", State.WARNING, "the metadata name no revocation_list_uri", advice)
        finding = self._judged(issuer, revocations, bearer=None)
        if finding.state is State.WRONG and self._token is not None:
            finding = self._judged(issuer, revocations, bearer=self._source)
        return finding

    def _judged(self, issuer: str, revocations: str | None, *, bearer: Any) -> Finding:  # noqa: ANN401 -- a source
        fetchers = None if self._given_fetcher is None else lambda: self._fetcher
        validator = TokenValidator(
            issuer,
            audience=ANY_AUDIENCE,
            revocations_url=revocations,
            reports=False,
            name="doctor",
            bearer=bearer,
            clock=self._clock,
            fetchers=fetchers,
            allow_plain_http=self._plain,
        )
        validator.start()
        try:
            validator.wait_ready(self._ready_seconds)
        except ValidatorNotReady as missing:
            advice = "check that the revocation service can be reached from here, and whether its list asks for a token"
            return Finding("revocation list", State.WRONG, f"no validator gets ready here ({missing.cause})", advice)
        finally:
            validator.stop()
        stats = validator.stats()
        found = f"{stats['list_entries']} entries, {stats['list_age']:.1f} s old"
        if stats["list_age"] > LIST_WARN_SECONDS:
            return Finding("revocation list", State.WARNING, found, "see the runbook RevocationListStale")
        return Finding("revocation list", State.OK, found)

    # --- the other services, and the certificates of all ---

    def _services(self) -> Iterator[Finding]:
        for name, setting in (
            ("token info", "TOKENRY_TOKENINFO_URL"),
            ("revocation service", "TOKENRY_REVOCATION_URL"),
        ):
            url = self._environ.get(setting)
            if not url:
                yield Finding(name, State.SKIPPED, f"{setting} is not set")
                continue
            base = url.rstrip("/").removesuffix("/revocations")
            advice = f"check {setting}, the network policy and the service's log"
            try:
                status = self._fetcher.fetch(Request(url=f"{base}/readyz")).status
            except TokenryError as error:
                yield Finding(name, State.WRONG, f"{base}: {error}", advice)
                continue
            ready = status == _OK
            found = f"{base} is {'ready' if ready else f'not ready (status {status})'}"
            yield Finding(name, State.OK if ready else State.WRONG, found, "" if ready else advice)

    def _certificates(self) -> Iterator[Finding]:
        metadata = self._metadata
        named = (metadata.token_endpoint, metadata.jwks_uri, metadata.revocation_list_uri) if metadata else ()
        settings = ("TOKENRY_ISSUER", "TOKENRY_TOKENINFO_URL", "TOKENRY_REVOCATION_URL")
        urls = [url for url in (*map(self._environ.get, settings), *named) if url]
        places = {(parts.hostname, parts.port or 443) for parts in map(urlsplit, urls) if parts.scheme == "https"}
        if not places:
            yield Finding("certificates", State.SKIPPED, "nothing is spoken to by https")
        for host, port in sorted((host or "", port) for host, port in places):
            yield self._certificate(host, port)

    def _certificate(self, host: str, port: int) -> Finding:
        check = f"certificate of {host}:{port}"
        try:
            end = self._certificate_end(host, port)
        except ssl.SSLCertVerificationError as error:
            advice = "renew it, or make its authority known to this machine (SSL_CERT_FILE)"
            return Finding(check, State.WRONG, f"it does not verify: {getattr(error, 'verify_message', '')}", advice)
        except OSError as error:
            return Finding(
                check, State.WRONG, f"no TLS connection ({error.strerror or type(error).__name__})", "see above"
            )
        days = (end - self._clock.now()) / _DAY
        found = f"good until {moment(end)}"
        if days < CERTIFICATE_WARN_DAYS:
            state = State.WARNING if days > 0 else State.WRONG
            return Finding(check, state, found, f"renew it: {max(0.0, days):.0f} days are left")
        return Finding(check, State.OK, found)


def certificate_end_of(host: str, port: int, *, context: ssl.SSLContext | None = None) -> float:
    """
    Return the end (Unix seconds) of the certificate that *host* shows.

    Raises:
        ssl.SSLCertVerificationError: It is not good for that host, or nobody here trusts who signed it.
        OSError: There is no TLS connection.
    """
    context = context or ssl.create_default_context()
    with (
        socket.create_connection((host, port), timeout=CONNECT_SECONDS) as plain,
        context.wrap_socket(plain, server_hostname=host) as tls,
    ):
        shown: dict[str, Any] = tls.getpeercert() or {}
    return float(ssl.cert_time_to_seconds(shown["notAfter"]))


def environment_of(environ: Mapping[str, str], context: Any) -> dict[str, str]:  # noqa: ANN401 -- a path, or None
    """Return *environ* with what the context file adds, if there is one."""
    known = dict(environ)
    if not find_context(environ, context).members:
        return known
    found = load_context(environ, file=context)
    added = {
        "TOKENRY_ISSUER": found.issuer,
        "TOKENRY_TOKENINFO_URL": found.tokeninfo,
        "TOKENRY_REVOCATION_URL": found.revocation,
        "TOKENRY_REALM": found.realm,
        "TOKENRY_CLIENT_ID": found.client_id,
    }
    known |= {name: value for name, value in added.items() if value}
    if found.client_secret is not None and not known.get("TOKENRY_CLIENT_SECRET_FILE"):
        known["TOKENRY_CLIENT_SECRET"] = found.client_secret.reveal()
    return known


def doctor(
    scope: Annotated[str, typer.Option(help="Scopes to ask a token for, separated by spaces.")] = "",
    name: Annotated[str | None, typer.Option(help="Name of the token or client below CREDENTIALS_DIR.")] = None,
    allow_plain_http: Annotated[
        bool, typer.Option("--allow-plain-http", help="Speak http:// to other machines, as your service is told to.")
    ] = False,
    context: ContextFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Say what works from here and what does not, and what to do; ends with 1 when something is wrong."""
    try:
        environ = environment_of(os.environ, context)
    except TokenryError as error:
        fail(str(error), code=ExitCode.USAGE)
    findings = list(Doctor(environ, scope=scope, name=name, allow_plain_http=allow_plain_http).findings())
    healthy = all(finding.state is not State.WRONG for finding in findings)
    if output is Format.JSON:
        show({"healthy": healthy, "findings": [asdict(finding) for finding in findings]}, form=Format.JSON)
    else:
        data.print(_table(findings))
    sys.exit(ExitCode.OK if healthy else ExitCode.FAILED)


_STYLES: Final = {State.OK: "green", State.WARNING: "yellow", State.WRONG: "red", State.SKIPPED: "dim"}


def _table(findings: list[Finding]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    for finding in findings:
        style = _STYLES[finding.state]
        table.add_row(f"[{style}]{finding.state}[/{style}]", escape(finding.check), escape(finding.found))
        if finding.advice:
            table.add_row("", "", escape(f"→ {finding.advice}"))
    return table
