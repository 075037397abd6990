"""The settings of the console."""

from collections.abc import Iterator
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field

from tokenry.serving.settings import Duration, Env, HttpUrl, Names, ServiceSettings, check_http_url

MAX_TARGETS = 32  # that are asked at a time, every few seconds


def _check_urls(urls: tuple[str, ...]) -> tuple[str, ...]:
    if len(urls) > MAX_TARGETS:
        raise ValueError(f"name at most {MAX_TARGETS} places")
    return tuple(map(check_http_url, urls))


class Settings(ServiceSettings):
    """What the console is told. It has no credentials."""

    own_prefixes: ClassVar[tuple[str, ...]] = ("TOKENRY_CONSOLE_",)

    issuer: HttpUrl = Field(description="Issuer identifier, as in the tokens' iss: whose tokens people log in with.")
    revocation_url: HttpUrl = Field(description="Base URL of the revocation service.")
    tokeninfo_url: HttpUrl = Field(
        description="Base URL of token info, which judges the tokens that people log in with."
    )
    admin_url: Annotated[HttpUrl | None, Env("TOKENRY_CONSOLE_ADMIN_URL")] = Field(
        None,
        description="Base URL of the admin service (`tokenry serve admin`): without it the pages Keys and Clients show "
        "what others publish, and change nothing. Default: none.",
    )
    metrics_urls: Annotated[Names, AfterValidator(_check_urls), Env("TOKENRY_CONSOLE_METRICS_URLS")] = Field(
        (),
        description="Where metrics are read, each a full URL such as http://10.0.0.7:9100/metrics, at most 32: name "
        "every instance, a balancer's address mixes their counters. Default: /metrics of the services above.",
    )
    scrape_interval: Annotated[Duration, Env("TOKENRY_CONSOLE_SCRAPE_INTERVAL")] = Field(
        5.0,
        ge=1,
        le=60,
        description="Seconds between two readings of the metrics, 1 to 60. An hour of them is kept in memory. Smaller: "
        "finer curves, more memory and more load on the services.",
    )
    read_scopes: Annotated[Names, Env("TOKENRY_CONSOLE_READ_SCOPES")] = Field(
        ("revocation.write", "revocation.admin", "revocation.undo", "audit.read", "registry.read", "registry.admin"),
        min_length=1,
        description="Scopes of which a token needs one to log in: whoever is in sees metrics and names of services. "
        "What else they see and do is for the services to decide.",
    )
    bearer_header: Annotated[str | None, Env("TOKENRY_CONSOLE_BEARER_HEADER")] = Field(
        None,
        pattern=r"^[A-Za-z0-9-]{1,64}$",
        description="Header field in which an OpenID Connect proxy in front hands on the user's access token, such as "
        "X-Forwarded-Access-Token, or Authorization. Believed from TOKENRY_TRUSTED_PROXIES alone, and then nobody can "
        "paste a token. Default: people paste one.",
    )
    session_idle: Annotated[Duration, Env("TOKENRY_CONSOLE_SESSION_IDLE")] = Field(
        900.0,
        ge=10,
        le=86_400,
        description="Seconds without a request of a person after which a session ends. Larger: an unattended browser "
        "stays logged in for longer.",
    )
    session_limit: Annotated[Duration, Env("TOKENRY_CONSOLE_SESSION_LIMIT")] = Field(
        28_800.0,
        ge=60,
        le=86_400,
        description="Seconds after which a session ends in any case; it never outlives its token.",
    )
    max_sessions: Annotated[int, Env("TOKENRY_CONSOLE_MAX_SESSIONS")] = Field(
        200, ge=1, le=10_000, description="Sessions at a time. Further logins are refused; one person has at most 5."
    )
    call_deadline: Annotated[Duration, Env("TOKENRY_CONSOLE_CALL_DEADLINE")] = Field(
        4.0,
        gt=0,
        le=9,
        description="Seconds that a page waits for one service. The part of the page that needs it then says so.",
    )
    propagation_target: Annotated[Duration, Env("TOKENRY_CONSOLE_PROPAGATION_TARGET")] = Field(
        31.0,
        gt=0,
        description="Seconds within which every validator is expected to enforce a revocation: a line in the curve; "
        "what is later is shown as wrong.",
    )

    runbooks_url: Annotated[
        Annotated[str, AfterValidator(check_http_url)] | None, Env("TOKENRY_CONSOLE_RUNBOOKS_URL")
    ] = Field(
        None,
        description="Where people read the runbooks of docs/runbooks, a URL that is put before ServiceDown and so on; "
        "default: their names are shown without a link.",
    )

    def contradictions(self) -> Iterator[str]:
        """Yield the rules between settings that are broken."""
        yield from super().contradictions()
        if self.bearer_header is not None and not self.trusted_proxies:
            yield (
                "TOKENRY_CONSOLE_BEARER_HEADER: anybody could write this field; name the proxy in "
                "TOKENRY_TRUSTED_PROXIES"
            )
        if self.session_idle > self.session_limit:
            yield "TOKENRY_CONSOLE_SESSION_IDLE: it is longer than TOKENRY_CONSOLE_SESSION_LIMIT; make it smaller"
        for url in self.metrics_urls:
            yield from self._check_outgoing("TOKENRY_CONSOLE_METRICS_URLS", url)

    @property
    def scraped(self) -> tuple[str, ...]:
        """Where metrics are read."""
        if self.metrics_urls:
            return self.metrics_urls
        services = (self.issuer, self.tokeninfo_url, self.revocation_url, self.admin_url)
        return tuple(dict.fromkeys(f"{url.rstrip('/')}/metrics" for url in services if url is not None))
