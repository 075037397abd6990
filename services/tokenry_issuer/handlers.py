"""HTTP in, HTTP out: token endpoint, JWK Set, metadata."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiohttp import hdrs, web

from tokenry.jose.encoding import dump_json
from tokenry.oauth.errors import NO_STORE, OAuthError, temporarily_unavailable
from tokenry.oauth.form import parse_form, parse_query
from tokenry.oauth.token_endpoint import CLIENT_CREDENTIALS
from tokenry.serving.application import authorization_values, read_body
from tokenry.serving.client_certificates import client_certificate
from tokenry.serving.keys import CLIENT_ADDRESS
from tokenry.serving.problem import Problem
from tokenry_issuer.issuance import RawRequest
from tokenry_issuer.metadata import build_metadata, build_openid_configuration
from tokenry_registry.tls_clients import TlsMethod

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable

    from tokenry_issuer.credentials import Credentials
    from tokenry_issuer.issuance import TokenIssuance
    from tokenry_issuer.keyring import JwkSet, Keyring
    from tokenry_issuer.registry import Registry
    from tokenry_issuer.revocations import Revocations
    from tokenry_issuer.settings import Settings

FIRST_KEYS_SECONDS = 1.0  # for which a request waits at start: a 503 would cost its sender a pause of that length
FIRST_KEYS_LOOKS = 20
METADATA_MAX_AGE = 300  # seconds; as long as the longest of a JWK Set
LEAST_MAX_AGE = 0.5  # of the configured one: jitter only shortens, so that caches do not expire together


class TokenEndpoint:
    """`POST /oauth2/token` and its alias (RFC 6749 section 3.2)."""

    def __init__(self, issuance: TokenIssuance) -> None:
        """Answer by *issuance*."""
        self._issuance = issuance

    async def post(self, request: web.Request) -> web.Response:
        """Answer a token request."""
        raw = await self._read(request)
        answer = await self._issuance.issue(raw)
        return web.Response(body=answer.to_json(), content_type="application/json", headers=dict(NO_STORE))

    async def _read(self, request: web.Request) -> RawRequest:
        address = request[CLIENT_ADDRESS]
        try:
            body = await read_body(request)
            return RawRequest(
                form=parse_form(body, content_type=request.headers.get(hdrs.CONTENT_TYPE)),
                query=parse_query(request.rel_url.raw_query_string),
                authorization=authorization_values(request),
                host=request.headers.get(hdrs.HOST),
                address=address,
                certificate=client_certificate(request),
                proofs=request.headers.getall("DPoP", ()),
            )
        except Problem as problem:  # too large, too slow, of a coding that is not read
            self._issuance.unreadable("invalid_request", status=problem.status, reason=problem.detail, address=address)
            raise
        except OAuthError as error:
            self._issuance.unreadable(error.code, status=error.status, reason=error.description, address=address)
            raise


class JwkSetEndpoint:
    """`GET /.well-known/jwks.json` and its alias (RFC 7517 section 5)."""

    def __init__(
        self,
        keyring: Keyring,
        revocations: Revocations,
        *,
        max_age: int,
        uniform: random.Random,
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        """Publish the keys of *keyring* that *revocations* does not name, cacheable for *max_age* seconds."""
        self._sleep = sleep
        self._keyring = keyring
        self._revocations = revocations
        self._max_age = max_age
        self._uniform = uniform

    async def get(self, request: web.Request) -> web.Response:
        """Answer with the JWK Set, or 304 when the caller has it; at start, a moment is waited for it."""
        published = self._published()
        for _ in range(0 if published is not None else FIRST_KEYS_LOOKS):
            await self._sleep(FIRST_KEYS_SECONDS / FIRST_KEYS_LOOKS)
            if (published := self._published()) is not None:
                break
        return self._answer(request, published)

    def _published(self) -> JwkSet | None:
        revoked = self._revocations.current()
        if revoked is not None:
            self._keyring.obey(revoked)
        return None if self._revocations.waiting else self._keyring.jwk_set()

    async def get_list_keys(self, request: web.Request) -> web.Response:
        """Answer with the keys that signed revocation lists are verified with, never those of tokens."""
        revoked = self._revocations.current()
        if revoked is not None:
            self._keyring.obey(revoked)
        return self._answer(request, self._keyring.list_jwk_set())

    def _answer(self, request: web.Request, published: JwkSet | None) -> web.Response:
        if published is None:
            raise temporarily_unavailable("there is no key to publish", retry_after=1)
        headers = {hdrs.ETAG: published.etag, hdrs.CACHE_CONTROL: f"public, max-age={self._jittered()}"}
        if _matches(request.headers.getall(hdrs.IF_NONE_MATCH, []), published.etag):
            return web.Response(status=304, headers=headers)
        return web.Response(body=published.body, content_type="application/json", headers=headers)

    def _jittered(self) -> int:
        return round(self._max_age * self._uniform.uniform(LEAST_MAX_AGE, 1.0))


class MetadataEndpoints:
    """Both well-known documents (RFC 8414 section 3)."""

    def __init__(self, settings: Settings, credentials: Credentials, keyring: Keyring) -> None:
        """Describe what *settings*, *credentials* and *keyring* offer."""
        self._settings = settings
        self._keyring = keyring
        self._credentials = credentials

    async def authorization_server(self, _request: web.Request) -> web.Response:
        """Answer with the metadata of RFC 8414."""
        return _document(self._members())

    async def openid_configuration(self, _request: web.Request) -> web.Response:
        """Answer with the same in the form of OpenID Connect Discovery."""
        return _document(build_openid_configuration(self._members()))

    def _members(self) -> dict[str, Any]:
        registry = self._credentials.current()
        grant_types = (
            frozenset({CLIENT_CREDENTIALS})
            if registry is None
            else frozenset().union(*(each.realm.grant_types for each in registry.realms.values()))
        )
        return build_metadata(
            issuer=self._settings.issuer,
            algorithms=_foreign_algorithms(registry),
            tls_methods=_tls_methods(self._settings),
            tokeninfo_url=self._settings.tokeninfo_url,
            revocation_url=self._settings.revocation_url,
            grant_types=grant_types,
            scopes=self._settings.scopes_supported,
            list_keys=self._keyring.list_jwk_set() is not None,
            answer_keys=self._keyring.signs_answers,
        )


def _foreign_algorithms(registry: Registry | None) -> frozenset[str]:
    realms = () if registry is None else registry.realms.values()
    rules = (rule for realm in realms for rules in realm.trust.values() for rule in rules)
    return frozenset(str(algorithm) for rule in rules for algorithm in rule.algorithms)


def _tls_methods(settings: Settings) -> tuple[str, ...]:
    if not settings.takes_client_certificates:
        return ()
    if settings.verifies_client_certificates:
        return (TlsMethod.BY_NAME, TlsMethod.BY_KEY)
    return (TlsMethod.BY_KEY,)


def _document(members: dict[str, Any]) -> web.Response:
    return web.Response(
        body=dump_json(members),
        content_type="application/json",
        headers={hdrs.CACHE_CONTROL: f"public, max-age={METADATA_MAX_AGE}"},
    )


def _matches(fields: list[str], etag: str) -> bool:
    # RFC 9110 section 13.1.2: weak comparison
    offered = {item.strip().removeprefix("W/") for field in fields for item in field.split(",")}
    return etag in offered or "*" in offered
