"""
Every parser that reads what comes from outside, with what it may raise and something good to begin from.

Generated tests and the coverage-guided fuzzer share this table: a parser that is missing here is tested by neither.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tests.support.access_tokens import ISSUER, KEY, KEYS, LIFETIME, NOW, token
from tokenry.errors import ConfigurationError, InvalidToken, ProtocolError, TokenryError, UnknownKey
from tokenry.jose import jws
from tokenry.jose.certificates import read_certificate
from tokenry.jose.encoding import b64url_decode, b64url_encode, parse_json_object
from tokenry.jose.jwks import KeySet
from tokenry.jose.sealing import EnvelopeKey, Sealed, UnsealingFailed
from tokenry.oauth.assertions import read_assertion
from tokenry.oauth.bearer import bearer_token
from tokenry.oauth.client_authentication import read_client_credential
from tokenry.oauth.dpop import make_proof, read_proof
from tokenry.oauth.errors import OAuthError
from tokenry.oauth.form import FORM, Form, parse_form, parse_query
from tokenry.oauth.introspection import parse_introspection_request
from tokenry.oauth.mutual_tls import HeaderForm, read_certificate_header, thumbprint_of_pem
from tokenry.oauth.protected_resource import ProtectedResource, read_protected_resource
from tokenry.oauth.revocation import parse_revocation_request
from tokenry.oauth.token_endpoint import parse_token_request
from tokenry.revocation.extension import EXTENSION_TYPE, ListExtension, read_extension
from tokenry.revocation.lists import RevocationList
from tokenry.revocation.signed import read_signed_list
from tokenry.revocation.stamps import ListStamp
from tokenry.revocation.wire import parse_binary_list, parse_list
from tokenry.scope import parse_scope
from tokenry.secret import Secret
from tokenry.serving.addresses import client_address, parse_listen_address, parse_networks
from tokenry.serving.settings import parse_duration
from tokenry.sources.metadata import parse_metadata
from tokenry.testing.clock import FakeClock
from tokenry.testing.issuer import FakeIssuer
from tokenry.validation.policy import ANY_AUDIENCE, TrustedIssuer, ValidationPolicy
from tokenry.validation.validator import Validator
from tokenry_admin.backup import read_backup, write_backup
from tokenry_admin.importing import read_lines
from tokenry_admin.plan_b_forms import add_password, read_client, read_user
from tokenry_admin.secret_rotation import read_rotation
from tokenry_cli.clients_file import read_clients_file
from tokenry_registry import bootstrap
from tokenry_registry.realms import RefusedObject, read_key, read_object
from tokenry_registry.secret_hashes import parse_hash
from tokenry_registry.signing_keys import read_stored_key
from tokenry_revocation.presented_token import examine
from tokenry_revocation.requests import (
    Bounds,
    InvalidRequest,
    parse_flag,
    parse_idempotency_key,
    parse_revoke,
    parse_seconds,
    parse_undo,
)
from tokenry_tokeninfo.auth_policy import PolicyFault, policy_from_header, policy_from_query

if TYPE_CHECKING:
    from collections.abc import Callable

    from tokenry_admin.importing import Imported

HOSTILE_FILES: Final = Path(__file__).parents[1] / "assets" / "hostile"
"""One folder for each parser that has any, one file for each defect, named after it."""

_BOUNDS: Final = Bounds(now=float(NOW), skew=2.0, retention=LIFETIME)
_ENVELOPE: Final = EnvelopeKey.generate()
_PROXIES: Final = parse_networks("127.0.0.0/8, ::1/128")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parser:
    """
    One parser.

    Attributes:
        read: Reads bytes; text arguments are made of them as HTTP would.
        refusals: What it may raise; anything else is a defect.
        seeds: Good input.
    """

    read: Callable[[bytes], object]
    refusals: tuple[type[BaseException], ...] = (TokenryError,)
    seeds: tuple[bytes, ...]

    def try_one(self, data: bytes) -> bool:
        """Return whether *data* was accepted; raise what must not be raised."""
        try:
            self.read(data)
        except self.refusals:
            return False
        return True

    def hostile(self, name: str) -> list[bytes]:
        """Return the hostile files for the parser of that *name*."""
        return [path.read_bytes() for path in sorted((HOSTILE_FILES / name).glob("*"))]


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _validate(data: bytes) -> object:
    policy = ValidationPolicy(
        issuers=(TrustedIssuer(issuer=ISSUER, max_token_lifetime=LIFETIME),), audience=ANY_AUDIENCE
    )
    return Validator(policy).validate(
        _text(data), now=float(NOW), keys=KEYS, revocations=RevocationList.empty(), list_age=0.0
    )


def _token_request(data: bytes) -> object:
    body, _, query = data.partition(b"\0")
    return parse_token_request(parse_form(body, content_type=FORM), query=parse_query(_text(query)))


def _object(key: str) -> Callable[[bytes], object]:
    return lambda body: read_object(read_key(key), body, environment="dev", max_token_lifetime=LIFETIME)


def _json(**members: Any) -> bytes:
    return json.dumps(members).encode()


def _written() -> dict[str, bytes]:
    """Return what the issuer's own writer writes, by kind."""
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        bootstrap.write_realm(root, "/services", environment="dev")
        bootstrap.write_client(root, "/services", "a", hashes=["sha256:" + "A" * 43], created_at=1, scopes=["x"])
        bootstrap.write_user(root, "/services", "u", hashes=["sha256:" + "A" * 43], created_at=1)
        kid = bootstrap.create_signing_key(root, _ENVELOPE, publish_at=1, activate_at=2, retire_at=3)
        realm = root / "realms" / "services"
        return {
            "realm": (realm / "realm.json").read_bytes(),
            "client": (realm / "clients" / "a.json").read_bytes(),
            "user": (realm / "users" / "u.json").read_bytes(),
            "key": (root / "keys" / f"{kid}.json").read_bytes(),
        }


def _fetched(path: str) -> bytes:
    from tokenry.http.fetch import Request

    issuer = FakeIssuer(clock=FakeClock())
    for number in range(3):
        issuer.revoke(issuer.token(sub=f"s{number}"))
    issuer.revoke_claim(sub="a", realm="/services")
    headers = {"Accept": "application/vnd.tokenry.revocations" if path.endswith("binary") else "application/json"}
    url = f"{issuer.issuer}{path.removesuffix('#binary')}"
    return issuer.fetch(Request(url=url, headers=headers, deadline_seconds=1, max_bytes=1 << 20)).body


def _signed_list(data: bytes) -> object:
    return read_signed_list(_text(data), issuer=ISSUER, find=lambda kid: KEYS.find(ISSUER, kid))


def _extension(data: bytes) -> object:
    return read_extension(_text(data), issuer=ISSUER, key=KEY.public)


def _signed_extension(data: bytes) -> object:
    """Read *data* as what a pinned key has signed: behind the signature, parsers are not fuzzed otherwise."""
    return _extension(jws.sign({"typ": EXTENSION_TYPE}, data, KEY).encode())


def _proof(data: bytes) -> object:
    return read_proof([_text(data)], method="GET", is_target=bool, now=float(NOW), token="t")


def _signed_proof(header: bytes, claims: bytes) -> object:
    """Read what the key in the header has signed."""
    signing_input = f"{b64url_encode(header)}.{b64url_encode(claims)}"
    return _proof(f"{signing_input}.{b64url_encode(KEY.sign(signing_input.encode()))}".encode())


def _all_read(found: tuple[list[Imported], dict[int, str]]) -> object:
    if found[1]:
        raise ProtocolError(next(iter(found[1].values())))
    return found[0]


def _backed_up() -> bytes:
    """Return a backup of what the issuer's own writer writes."""
    import asyncio

    from tests.support.registry_store import MemoryRegistry

    store, file = MemoryRegistry(), io.BytesIO()
    for kind, key in (("realm", "realms/services/realm.json"), ("client", "realms/services/clients/a.json")):
        store.fill(key, _WRITTEN[kind])
    asyncio.run(write_backup(store, file, environment="dev", now=NOW))
    return file.getvalue()


_WRITTEN: Final = _written()
_PROOF: Final = make_proof(KEY, method="GET", url="https://a.example/b", now=NOW, jti="j" * 16, token="t")
_PROOF_HEADER, _PROOF_CLAIMS = (b64url_decode(part) for part in _PROOF.split(".")[:2])
_GOOD: Final = token().encode()
_GRANT: Final = b"grant_type=client_credentials&scope=a+b&resource=https%3A%2F%2Fa.example"
_METADATA: Final = _json(
    issuer=ISSUER, token_endpoint=f"{ISSUER}/t", jwks_uri=f"{ISSUER}/k", revocation_list_uri="https://r.example"
)
_RESOURCE: Final = ProtectedResource(resource=ISSUER, authorization_servers=(ISSUER,), scopes=("a",)).document()
_PEM: Final = b"-----BEGIN CERTIFICATE-----\nMAMCAQE=\n-----END CERTIFICATE-----\n"

PARSERS: Final[dict[str, Parser]] = {
    "token": Parser(read=_validate, refusals=(InvalidToken, UnknownKey), seeds=(_GOOD,)),
    "jws": Parser(read=lambda data: jws.split(_text(data)), seeds=(_GOOD,)),
    "json": Parser(read=parse_json_object, seeds=(b'{"a":[1,{"b":null}],"c":"d"}',)),
    "jwks": Parser(read=lambda data: KeySet.parse(data, issuer=ISSUER), seeds=(_json(keys=[KEY.public.to_jwk()]),)),
    "list": Parser(read=parse_list, seeds=(_fetched("/revocations/snapshot"),)),
    "binary list": Parser(read=parse_binary_list, seeds=(_fetched("/revocations/snapshot#binary"),)),
    "signed list": Parser(read=_signed_list, seeds=(_GOOD,)),
    "extension": Parser(
        read=_extension,
        seeds=(
            ListExtension(issuer=ISSUER, issued_at=NOW, until=NOW + 60, name="n", by="b", reason="r", ticket="t")
            .sign(KEY)
            .encode(),
        ),
    ),
    "signed extension": Parser(
        read=_signed_extension, seeds=(_json(iss=ISSUER, iat=NOW, exp=NOW + 60, jti="n", sub="b", reason="r"),)
    ),
    "dpop proof": Parser(read=_proof, seeds=(_PROOF.encode(),)),
    "dpop header": Parser(read=lambda data: _signed_proof(data, _PROOF_CLAIMS), seeds=(_PROOF_HEADER,)),
    "dpop claims": Parser(read=lambda data: _signed_proof(_PROOF_HEADER, data), seeds=(_PROOF_CLAIMS,)),
    "list stamp": Parser(read=lambda data: ListStamp.parse(_text(data)), seeds=(b"epoch=1, as_of=1.5, age=0.1",)),
    "metadata": Parser(read=lambda data: parse_metadata(data, issuer=ISSUER), seeds=(_METADATA,)),
    "resource metadata": Parser(read=lambda data: read_protected_resource(data, resource=ISSUER), seeds=(_RESOURCE,)),
    "certificate as pem": Parser(read=lambda data: thumbprint_of_pem(_text(data)), seeds=(_PEM,)),
    "form": Parser(
        read=lambda data: parse_form(data.partition(b"\0")[0], content_type=_text(data.partition(b"\0")[2]) or FORM),
        refusals=(OAuthError,),
        seeds=(_GRANT, _GRANT + b"\0" + FORM.encode() + b"; charset=utf-8"),
    ),
    "query": Parser(read=lambda data: parse_query(_text(data)), refusals=(OAuthError,), seeds=(_GRANT,)),
    "token request": Parser(
        read=_token_request, refusals=(OAuthError,), seeds=(_GRANT, b"grant_type=password&username=a&password=b")
    ),
    "introspection request": Parser(
        read=lambda data: parse_introspection_request(parse_form(data, content_type=FORM)),
        refusals=(OAuthError,),
        seeds=(b"token=a&token_type_hint=b",),
    ),
    "revocation request": Parser(
        read=lambda data: parse_revocation_request(parse_form(data, content_type=FORM)),
        refusals=(OAuthError,),
        seeds=(b"token=a",),
    ),
    "client credential": Parser(
        read=lambda data: read_client_credential([_text(data)], Form()),
        refusals=(OAuthError,),
        seeds=(b"Basic YTpi", b"basic YTpi"),
    ),
    "client assertion": Parser(read=lambda data: read_assertion(_text(data)), seeds=(_GOOD,)),
    "bearer": Parser(
        read=lambda data: bearer_token([_text(data)]), refusals=(OAuthError,), seeds=(b"Bearer " + _GOOD,)
    ),
    "certificate": Parser(read=read_certificate, seeds=(b"\x30\x03\x02\x01\x01",)),
    "certificate header": Parser(
        read=lambda data: [read_certificate_header([_text(data)], form) for form in HeaderForm],
        seeds=(b":MAMCAQE=:", b"-----BEGIN%20CERTIFICATE-----%0AMAMCAQE=%0A-----END%20CERTIFICATE-----%0A"),
    ),
    "scope": Parser(read=lambda data: parse_scope(_text(data)), seeds=(b"a b c",)),
    "gateway query": Parser(
        read=lambda data: policy_from_query(_text(data)), refusals=(PolicyFault,), seeds=(b"scope=a&scope=b&any=1",)
    ),
    "gateway header": Parser(
        read=lambda data: policy_from_header([_text(data)]), refusals=(PolicyFault,), seeds=(b"scope=a b; any=0",)
    ),
    "revoke": Parser(
        read=lambda data: parse_revoke(data, bounds=_BOUNDS),
        refusals=(InvalidRequest,),
        seeds=(
            _json(type="TOKEN", data={"token": _GOOD.decode()}),
            _json(type="TOKEN", data={"jti": "a", "expires_at": NOW}),
            _json(type="CLAIM", data={"claims": {"sub": "a", "realm": "/b"}, "issued_before": NOW}, reason="r"),
            _json(type="KEY", data={"kid": "k"}),
            _json(type="GLOBAL", data={}, confirm=True),
        ),
    ),
    "undo": Parser(read=parse_undo, refusals=(InvalidRequest,), seeds=(_json(reason="a", ticket="b"),)),
    "revoked token": Parser(
        read=lambda data: examine(Secret(_text(data)), issuers=[ISSUER], keys=KEYS),
        refusals=(InvalidRequest,),
        seeds=(_GOOD,),
    ),
    "idempotency key": Parser(
        read=lambda data: parse_idempotency_key([_text(data)]), refusals=(InvalidRequest,), seeds=(b"abc",)
    ),
    "seconds": Parser(
        read=lambda data: parse_seconds(_text(data), name="from"), refusals=(InvalidRequest,), seeds=(b"1.5", b"-1")
    ),
    "flag": Parser(read=lambda data: parse_flag(_text(data), name="x"), refusals=(InvalidRequest,), seeds=(b"true",)),
    "realm object": Parser(
        read=_object("realms/services/realm.json"), refusals=(RefusedObject,), seeds=(_WRITTEN["realm"],)
    ),
    "client object": Parser(
        read=_object("realms/services/clients/a.json"), refusals=(RefusedObject,), seeds=(_WRITTEN["client"],)
    ),
    "user object": Parser(
        read=_object("realms/services/users/u.json"), refusals=(RefusedObject,), seeds=(_WRITTEN["user"],)
    ),
    "object name": Parser(
        read=lambda data: read_key(_text(data)), refusals=(RefusedObject,), seeds=(b"realms/services/clients/a.json",)
    ),
    "stored key": Parser(
        read=lambda data: read_stored_key(data, kid="k"), refusals=(RefusedObject,), seeds=(_WRITTEN["key"],)
    ),
    "sealed": Parser(
        read=lambda data: Sealed.from_dict(parse_json_object(data)),
        refusals=(TokenryError, UnsealingFailed),
        seeds=(json.dumps(_ENVELOPE.seal(b"x", kid="k", use="token").to_dict()).encode(),),
    ),
    "stored hash": Parser(
        read=lambda data: parse_hash(_text(data)),
        seeds=(b"sha256:" + b64url_encode(bytes(32)).encode(), b"$2b$12$" + b"a" * 53),
    ),
    "raw-sync client": Parser(
        read=lambda data: read_client(data, before={"secrets": [], "scopes": ["a"]}, partial=True, now=NOW),
        seeds=(_json(secret_hash="sha256:" + "A" * 43, scopes=["a"], is_confidential=True, name="n"),),
    ),
    "raw-sync user": Parser(
        read=lambda data: read_user(data, before=None, partial=False, now=NOW),
        seeds=(_json(password_hashes=["sha256:" + "A" * 43], scopes={"uid": "a"}),),
    ),
    "raw-sync password": Parser(
        read=lambda data: add_password(data, before={}, now=NOW),
        seeds=(_json(password_hash="sha256:" + "A" * 43),),
    ),
    "plan b line": Parser(
        read=lambda data: _all_read(read_lines(data.splitlines(), now=NOW)),
        seeds=(_json(realm="/a", client_id="b", secret_hash="sha256:" + "A" * 43),),
    ),
    "rotation state": Parser(
        read=read_rotation,
        seeds=(_json(version=1, step="adding", hash="h", started_at=1, lease_until=2, overlap=3, abandoned=["a"]),),
    ),
    "clients file": Parser(
        read=lambda data: read_clients_file(data, name="f"),
        seeds=(
            b"realm: a\nclients:\n  - client_id: b\n    scopes: [c, 'd']\n    enabled: true\n    token_lifetime: 60\n",
        ),
    ),
    "backup": Parser(
        read=lambda data: read_backup(io.BytesIO(data), environment="dev"),
        seeds=(_backed_up(),),
    ),
    "forwarded for": Parser(
        read=lambda data: client_address("127.0.0.1", forwarded_for=[_text(data)], trusted_proxies=_PROXIES),
        refusals=(),
        seeds=(b"10.0.0.1, 127.0.0.2", b"[2001:db8::1]:80"),
    ),
    "listen address": Parser(
        read=lambda data: parse_listen_address(_text(data)), refusals=(ValueError,), seeds=(b"127.0.0.1:80", b"[::]:1")
    ),
    "networks": Parser(
        read=lambda data: parse_networks(_text(data)), refusals=(ValueError, ConfigurationError), seeds=(b"10.0.0.0/8",)
    ),
    "duration": Parser(read=lambda data: parse_duration(_text(data)), refusals=(ValueError,), seeds=(b"1h10m", b"5")),
}
