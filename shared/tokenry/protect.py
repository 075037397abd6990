"""
The decision that every framework's middleware makes, and the answer that refuses: pure, one for all of them.

Invariants:
    * Closed by default: what is not marked `public` needs a valid token.
    * The same situation gets the same status, challenge (RFC 6750 section 3) and body in every framework.
    * A caller learns `invalid_token` and never why.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar
from urllib.parse import urlsplit

from tokenry.errors import (
    ConfigurationError,
    InsufficientScope,
    InvalidToken,
    TokenryError,
    UnknownKey,
    ValidatorNotReady,
)
from tokenry.jose.encoding import dump_json
from tokenry.oauth.bearer import bearer_token
from tokenry.oauth.confirmation import JKT, Shown
from tokenry.oauth.dpop import ALGORITHMS, SCHEME, BadProof, MemoryFull, Proof
from tokenry.oauth.errors import OAuthError, bearer_challenge, temporarily_unavailable
from tokenry.scope import NO_SCOPE, Scope, format_scope, parse_scope, scope_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from tokenry.certificates import ProxyCertificate
    from tokenry.claims import TokenInfo
    from tokenry.dpop import Asked, Dpop

HandlerT = TypeVar("HandlerT")
AppT = TypeVar("AppT")
_ATTRIBUTE: Final = "__tokenry_access__"


class Judge(Protocol):
    """Judges tokens: `TokenValidator` here, or `Introspector` by asking."""

    async def avalidate(self, token: str, *, confirmation: str | Shown | None = None) -> TokenInfo:
        """
        Return what *token* says; may wait for a key, or for an answer.

        *confirmation* is the thumbprint of the caller's certificate (RFC 8705 section 3), if it presented one, or all
        that it has shown.
        """
        ...

    def validate_waiting(self, token: str, *, confirmation: str | Shown | None = None) -> TokenInfo:
        """Do as `avalidate` does, for threads."""
        ...


class PromptJudge(Judge, Protocol):
    """A judge that need not wait for a token whose key it holds: `TokenValidator`."""

    def validate_at_once(self, token: str, confirmation: str | Shown | None = None) -> TokenInfo:
        """Do as `avalidate` does, but raise `UnknownKey` where that would wait."""
        ...


# --- what a handler asks for ---


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """
    What a handler asks of its callers; as it is made without arguments: any valid token.

    Attributes:
        public: Everybody may call, with or without a token.
        scope: Scopes that the token must have.
        any_of: One of them is enough.
    """

    public: bool = False
    scope: Scope = NO_SCOPE
    any_of: bool = False

    def demand(self, info: TokenInfo) -> None:
        """
        Return if the token has what is asked for.

        Raises:
            InsufficientScope: It has not.
        """
        missing = self.scope - info.scope
        if missing and not (self.any_of and missing != self.scope):
            raise InsufficientScope(missing)

    def __str__(self) -> str:
        """Say it for people."""
        if self.public:
            return "public"
        if not self.scope:
            return "any valid token"
        return (" or " if self.any_of else " and ").join(sorted(self.scope))


ANY_TOKEN: Final = Access()
PUBLIC: Final = Access(public=True)


def needs(scopes: Iterable[str], *, any_of: bool = False) -> Access:
    """
    Return the access that asks for *scopes*; several names in one string are several scopes.

    Raises:
        ConfigurationError: None is named.
        InvalidScope: One is not of the grammar.
    """
    given = tuple(scopes)
    if not all(isinstance(scope, str) for scope in given):
        raise ConfigurationError(["name the scopes: @require('orders.read')"])
    scope = scope_of(name for text in given for name in parse_scope(text))
    if not scope:
        raise ConfigurationError(["name the scopes: @require('orders.read')"])
    return Access(scope=scope, any_of=any_of)


class Require:
    """`@require("a", "b")`: all of them; `@require.any_of("a", "b")`: one of them."""

    def __init__(self, guard: Callable[[Any, Access], Any]) -> None:
        """Make a decorator whose handlers run behind *guard*."""
        self._guard = guard

    def __call__(self, *scopes: str) -> Callable[[HandlerT], HandlerT]:
        """Demand a token with all *scopes* (several names in one string are several scopes)."""
        return self._decorator(needs(scopes))

    def any_of(self, *scopes: str) -> Callable[[HandlerT], HandlerT]:
        """Demand a token with at least one of *scopes*."""
        return self._decorator(needs(scopes, any_of=True))

    def _decorator(self, access: Access) -> Callable[[HandlerT], HandlerT]:
        def mark(handler: HandlerT) -> HandlerT:
            guarded: HandlerT = self._guard(handler, access)
            return marked(guarded, access)

        return mark


def public(handler: HandlerT) -> HandlerT:
    """Let everybody call *handler* (a function or a class), with or without a token."""
    return marked(handler, PUBLIC)


def marked(handler: HandlerT, access: Access) -> HandlerT:
    """Write onto *handler* what it asks for."""
    setattr(handler, _ATTRIBUTE, access)
    return handler


def mark_of(handler: object) -> Access | None:
    """Return what is written onto *handler*, or None."""
    found = getattr(handler, _ATTRIBUTE, None)
    return found if isinstance(found, Access) else None


def access_of(handler: object, method: str | None = None) -> Access:
    """Return what *handler* asks for: a function, or a class with a function for each HTTP *method*."""
    if method is not None and isinstance(handler, type):
        own = mark_of(getattr(handler, method.lower(), None))
        if own is not None:
            return own
    return mark_of(handler) or ANY_TOKEN


class PublicPaths:
    """
    Paths that are open, for what has no handler to mark: `/healthz`, or `/static/*` for all below.

    A path with `..`, `//` or a backslash is never one of them: who reads it next may read it differently.
    """

    def __init__(self, paths: Iterable[str] = ()) -> None:
        """Open *paths*; raises ConfigurationError for one that does not begin with a slash."""
        given = (paths,) if isinstance(paths, str) else tuple(paths)
        wrong = [path for path in given if not path.startswith("/") or "*" in path.removesuffix("/*")]
        if wrong:
            raise ConfigurationError(
                [f"public: {path!r} is not a path such as /healthz or /static/*" for path in wrong]
            )
        self._exact = frozenset(path for path in given if not path.endswith("/*"))
        self._below = tuple(path.removesuffix("*") for path in given if path.endswith("/*"))

    def __contains__(self, path: str) -> bool:
        """Tell whether *path* (decoded, without the query) is open."""
        if path in self._exact:
            return True
        odd = "//" in path or "\\" in path or "\0" in path or not {".", ".."}.isdisjoint(path.split("/"))
        return not odd and path.startswith(self._below) if self._below else False

    def __iter__(self) -> Any:  # noqa: ANN401 -- an iterator of strings
        return iter(sorted({*self._exact, *(f"{path}*" for path in self._below)}))


# --- the decision ---


class Door(Generic[AppT]):
    """
    What stands before an application of any kind, and lets nobody in without a valid token.

    Args:
        app: The application.
        validator: Judges the tokens.
        public: Paths that are open: `/healthz`, or `/static/*` for all below.
        realm: Protection space to name in challenges (RFC 9110 section 11.5).
        resource_metadata: URL of this service's metadata to name in challenges (RFC 9728 section 5.1).
        certificate: The certificate that a proxy hands on; default: that of the TLS connection, where the server tells
            it. Without one, a token that is bound to a certificate is refused.
        dpop: Reads the proofs of callers whose tokens are bound to a key; without it such tokens are refused.

    Raises:
        ConfigurationError: A path or the URL is not usable.
    """

    def __init__(
        self,
        app: AppT,
        validator: Judge,
        *,
        public: Iterable[str] = (),
        realm: str | None = None,
        resource_metadata: str | None = None,
        certificate: ProxyCertificate | None = None,
        dpop: Dpop | None = None,
    ) -> None:
        """Stand before *app*."""
        self.app = app
        self.public = PublicPaths(public)
        self.protection = Protection(
            validator=validator,
            realm=realm,
            resource_metadata=resource_metadata,
            dpop=dpop,
            certificate=certificate,
        )
        self._begin()

    def _begin(self) -> None:
        """Do what else a kind of application needs at its start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """
    The answer to a request that may not go on.

    Attributes:
        status: 400, 401, 403 or 503.
        headers: Header fields, the content type among them where there is a body.
        error: The error code, or None for a request without a token.
        body: JSON, or nothing.
    """

    status: int
    headers: tuple[tuple[str, str], ...]
    error: str | None = None
    body: bytes = b""

    @property
    def challenge(self) -> str | None:
        """The `WWW-Authenticate` field, if there is one."""
        return dict(self.headers).get("WWW-Authenticate")

    @property
    def retry_after(self) -> int | None:
        """Seconds of the `Retry-After` field, if there is one."""
        value = dict(self.headers).get("Retry-After")
        return int(value) if value is not None else None


class Refused(TokenryError):
    """
    The request may not go on; the cause (`__cause__`) says why, for our own logs.

    Attributes:
        refusal: The answer.
    """

    def __init__(self, refusal: Refusal) -> None:
        """Refuse with *refusal*."""
        self.refusal = refusal
        super().__init__(f"{refusal.status} {refusal.error or 'no token'}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Protection:
    """
    Lets requests in, or refuses them.

    Attributes:
        validator: Judges the tokens.
        realm: Protection space to name in challenges (RFC 9110 section 11.5).
        resource_metadata: URL of this service's metadata, to name in challenges (RFC 9728 section 5.1).
        dpop: Reads proofs of tokens that are bound to a key (RFC 9449); None: such tokens are refused.
        certificate: The certificate that a proxy hands on (RFC 8705); None: that of the connection counts.
    """

    validator: Judge
    realm: str | None = None
    resource_metadata: str | None = None
    dpop: Dpop | None = None
    certificate: ProxyCertificate | None = None
    _validate_at_once: Callable[[str, str | None], TokenInfo] | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Raise ConfigurationError for metadata whose URL cannot stand in a challenge."""
        url = self.resource_metadata
        if url is not None and (urlsplit(url).scheme not in {"http", "https"} or not set(url).isdisjoint(' "\\')):
            raise ConfigurationError(["resource_metadata: the URL of this service's metadata (RFC 9728)"])
        prompt = getattr(self.validator, "validate_at_once", None) if self.dpop is None else None
        object.__setattr__(self, "_validate_at_once", prompt)

    def admit_at_once(
        self, authorization: Sequence[str], access: Access = ANY_TOKEN, confirmation: str | None = None
    ) -> TokenInfo | None:
        """
        Do as `aadmit` does where that needs no waiting, without its two coroutines; None: call that.

        Raises:
            Refused: With the answer.
        """
        validate = self._validate_at_once
        if validate is None:
            return None
        try:
            info = validate(self._token(authorization), confirmation)
            if access is not ANY_TOKEN:
                access.demand(info)
        except UnknownKey:
            return None
        except _REFUSALS as error:
            raise Refused(self.refusal(error, access)) from error
        return info

    async def aadmit(
        self,
        authorization: Sequence[str],
        access: Access = ANY_TOKEN,
        *,
        confirmation: str | None = None,
        asked: Callable[[], Asked] | None = None,
    ) -> TokenInfo:
        """
        Return what the token in *authorization* (all values of that header field) says.

        Args:
            authorization: Where the token is.
            access: What the handler asks for.
            confirmation: Thumbprint (`x5t#S256`) of the certificate of the caller's connection. Without one, a token
                that is bound to a certificate is refused.
            asked: Says what a proof in the request is compared with. Without it, or without `dpop`, a token that is
                bound to a key is refused.

        Raises:
            Refused: With the answer.
        """
        if self.dpop is not None:
            token, shown, proof = self._proved(self.dpop, authorization, confirmation, asked)
            try:
                info = await self.validator.avalidate(token, **_confirmed(shown))
                self._use(self.dpop, proof)
                access.demand(info)
            except _REFUSALS as error:
                raise Refused(self.refusal(error, access, proved=proof is not None)) from error
            return info
        try:
            info = await self.validator.avalidate(self._token(authorization), **_confirmed(confirmation))
            access.demand(info)
        except _REFUSALS as error:
            raise Refused(self.refusal(error, access)) from error
        return info

    def admit(
        self,
        authorization: Sequence[str],
        access: Access = ANY_TOKEN,
        *,
        confirmation: str | None = None,
        asked: Callable[[], Asked] | None = None,
    ) -> TokenInfo:
        """Do as `aadmit` does, for threads."""
        if self.dpop is not None:
            token, shown, proof = self._proved(self.dpop, authorization, confirmation, asked)
            try:
                info = self.validator.validate_waiting(token, **_confirmed(shown))
                self._use(self.dpop, proof)
                access.demand(info)
            except _REFUSALS as error:
                raise Refused(self.refusal(error, access, proved=proof is not None)) from error
            return info
        try:
            info = self.validator.validate_waiting(self._token(authorization), **_confirmed(confirmation))
            access.demand(info)
        except _REFUSALS as error:
            raise Refused(self.refusal(error, access)) from error
        return info

    def _proved(
        self,
        dpop: Dpop,
        authorization: Sequence[str],
        certificate: str | None,
        asked: Callable[[], Asked] | None,
    ) -> tuple[str, str | Shown | None, Proof | None]:
        """Return the token, what its sender has shown, and the proof in the request if there is one."""
        try:
            found = dpop.read(authorization, asked)
            if found is not None:
                token, proof = found
                return token, Shown(certificate=certificate, key=proof.jkt), proof
            if dpop.required:
                raise Refused(self.no_token())
            return self._token(authorization), certificate, None
        except (OAuthError, BadProof) as error:
            raise Refused(self.refusal(error, proved=isinstance(error, BadProof))) from error

    @staticmethod
    def _use(dpop: Dpop, proof: Proof | None) -> None:
        if proof is not None:
            dpop.use(proof)

    def require(self, info: TokenInfo, access: Access) -> None:
        """Return if *info*, which was let in before, has what is asked for; else raise Refused."""
        try:
            access.demand(info)
        except InsufficientScope as error:
            raise Refused(self.refusal(error, access, proved=JKT in (info.claims.get("cnf") or ()))) from error

    def refusal(self, error: TokenryError, access: Access = ANY_TOKEN, *, proved: bool = False) -> Refusal:
        """
        Return the answer for *error*, whatever it is: what is not known here is no reason to let anybody in.

        *proved* says that the request uses the scheme `DPoP`: then the challenge does too.
        """
        match error:
            case OAuthError():
                return self._answer(error.status, error.body(), self.challenge(error=error.code, proved=proved))
            case BadProof():
                challenge = self.challenge(error="invalid_dpop_proof", proved=True)
                return self._answer(401, {"error": "invalid_dpop_proof"}, challenge)
            case MemoryFull():
                busy = temporarily_unavailable("proofs cannot be remembered now", retry_after=1)
                return self._answer(busy.status, busy.body(), None, busy.headers)
            case InsufficientScope():
                challenge = self.challenge(error="insufficient_scope", scope=access.scope, proved=proved)
                return self._answer(403, {"error": "insufficient_scope"}, challenge)
            case ValidatorNotReady():
                busy = temporarily_unavailable("tokens cannot be judged now", retry_after=error.retry_after)
                return self._answer(busy.status, busy.body(), None, busy.headers)
            case InvalidToken():
                challenge = self.challenge(error="invalid_token", proved=proved)
                return self._answer(401, {"error": "invalid_token"}, challenge)
            case _:
                raise error

    def no_token(self) -> Refusal:
        """Return the answer to a request without a token: a challenge without an error (RFC 6750 section 3.1)."""
        return self._answer(401, None, self.challenge())

    def challenge(self, *, error: str | None = None, scope: Scope | None = None, proved: bool = False) -> str:
        """Return the value of `WWW-Authenticate`; of a service that takes both schemes, a challenge for each."""

        def one(scheme: str = "Bearer", algs: str | None = None) -> str:
            return bearer_challenge(
                realm=self.realm,
                error=error,
                scope=scope or None,
                resource_metadata=self.resource_metadata,
                scheme=scheme,
                algs=algs,
            )

        if self.dpop is None:
            return one()
        algs = " ".join(ALGORITHMS)
        if proved or self.dpop.required:
            return one(SCHEME, algs)
        return f"{one()}, {bearer_challenge(scheme=SCHEME, algs=algs)}"

    def _token(self, authorization: Sequence[str]) -> str:
        token = bearer_token(authorization)
        if token is None:
            raise Refused(self.no_token())
        return token

    @staticmethod
    def _answer(
        status: int, body: dict[str, str] | None, challenge: str | None, more: Iterable[tuple[str, str]] = ()
    ) -> Refusal:
        headers = [("Cache-Control", "no-store"), *more]
        if challenge is not None:
            headers.append(("WWW-Authenticate", challenge))
        if body is None:
            return Refusal(status=status, headers=tuple(headers))
        headers.append(("Content-Type", "application/json"))
        return Refusal(status=status, headers=tuple(headers), error=body["error"], body=dump_json(body))


def _confirmed(confirmation: str | Shown | None) -> dict[str, Any]:
    # A judge that knows nothing of certificates is asked as before: bound tokens are not good there.
    return {} if confirmation is None else {"confirmation": confirmation}


_REFUSALS: Final = (OAuthError, InvalidToken, InsufficientScope, ValidatorNotReady, BadProof, MemoryFull)


# --- the request that is being handled ---


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """
    Who was let in, and by which protection.

    Attributes:
        info: The verified token.
        protection: What let it in.
    """

    info: TokenInfo
    protection: Protection


CURRENT: Final[ContextVar[Admitted | None]] = ContextVar("tokenry_admitted", default=None)


def demand_of_current(access: Access) -> None:
    """
    Return if the request that is being handled was let in with a token that has what *access* asks for.

    Middleware has looked at that before; but a decorator that hides a handler's mark, or a forgotten
    middleware, must not open the handler.

    Raises:
        Refused: The token lacks scopes.
        RuntimeError: No middleware has let the request in.
    """
    admitted = CURRENT.get()
    if admitted is None:
        raise RuntimeError("@require without the middleware: the handler was not run")
    admitted.protection.require(admitted.info, access)


# --- for reviews ---


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteAccess:
    """
    One route, as `tokenry routes` lists it.

    Attributes:
        method: HTTP method, or `*`.
        path: Path pattern of the framework.
        access: What callers need; None where it cannot be told from outside.
        handler: Name of the handler.
    """

    method: str
    path: str
    access: Access | None
    handler: str = ""

    def as_mapping(self) -> dict[str, Any]:
        """Return it for JSON."""
        access = self.access
        return {
            "method": self.method,
            "path": self.path,
            "access": "unknown" if access is None else str(access),
            "public": access is not None and access.public,
            "scope": None if access is None else format_scope(access.scope),
            "handler": self.handler,
        }


def name_of(handler: object) -> str:
    """Return a handler's name for people."""
    name = getattr(handler, "__qualname__", None) or type(handler).__qualname__
    return f"{getattr(handler, '__module__', '')}.{name}".lstrip(".")
