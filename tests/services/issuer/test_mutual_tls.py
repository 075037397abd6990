"""Clients known by their certificate, and tokens bound to one (RFC 8705), behind a proxy and on a TLS connection."""

import base64
import datetime as dt
import ssl
from contextlib import AsyncExitStack, asynccontextmanager
from urllib.parse import quote

import aiohttp
import pytest
from structlog.testing import capture_logs

from tests.services.issuer.support import FORM, SECRET, encoded, running, settings, usual_objects
from tests.services.issuer.test_token_endpoint import GRANT, ORDERS, refused
from tests.support.certificates import authority, client_identity, make_identity, self_signed
from tests.support.foreign_tokens import foreign_key
from tokenry.oauth.mutual_tls import PresentedCertificate
from tokenry.serving.server import serve, tls_context

PROXY = {"trusted_proxies": "127.0.0.0/8", "client_certificate_header": "Client-Cert"}
VERIFIED = {**PROXY, "client_certificate_verified": True}
BY_NAME = {"subject_dn": "CN=orders,O=Example"}
BY_KEY = {"jwks": {"keys": [self_signed().jwk]}}


def field(identity):
    return {"Client-Cert": f":{base64.b64encode(identity.der).decode()}:"}


def thumbprint(identity):
    return PresentedCertificate(der=identity.der, chain_verified=False).thumbprint


async def ask(issuer, identity, **members):
    headers = {} if identity is None else field(identity)
    return await issuer.token({**GRANT, "client_id": "orders", **members}, client=None, headers=headers)


@asynccontextmanager
async def registered(tls, *, proxy=None, **members):
    """An issuer behind a proxy, with a client that is known by a certificate."""
    async with running(**(VERIFIED if proxy is None else proxy)) as issuer:
        issuer.store.change(ORDERS, tls_client_auth=tls, **members)
        await issuer.refresh()
        yield issuer


async def test_C13_a_client_is_known_by_its_certificates_subject_and_its_token_is_bound():
    async with registered(BY_NAME) as issuer:
        answer = await ask(issuer, client_identity())
        assert answer.status == 200, answer.body
        assert answer.claims["client_id"] == "orders"
        assert answer.claims["cnf"] == {"x5t#S256": thumbprint(client_identity())}


@pytest.mark.parametrize(
    ("attribute", "registered_as", "names"),
    [
        ("subject_dn", "2.5.4.3=orders,O=Example", {}),
        ("san_dns", "orders.example.org", {"dns": ("a.example", "orders.example.org")}),
        ("san_uri", "spiffe://example.org/orders", {"uri": ("spiffe://example.org/orders",)}),
        ("san_ip", "FD00:0::1", {"ip": ("fd00::1",)}),
        ("san_email", "orders@example.org", {"email": ("orders@example.org",)}),
    ],
)
async def test_C13_each_kind_of_name_is_compared_exactly(attribute, registered_as, names):
    async with registered({attribute: registered_as}) as issuer:
        assert (await ask(issuer, make_identity(issuer=authority(), **names))).status == 200
        other = make_identity("CN=Orders,O=Example", issuer=authority(), dns=("xorders.example.org",), uri=("spiffe://e",),
                              ip=("fd00::2",), email=("orders@example.com",))  # fmt: skip
        assert refused(await ask(issuer, other), 401, "invalid_client")


async def test_C13_a_name_says_nothing_unless_the_chain_was_verified():
    async with registered(BY_NAME, proxy=PROXY) as issuer:
        assert refused(await ask(issuer, client_identity()), 401, "invalid_client")


@pytest.mark.parametrize("proxy", [PROXY, VERIFIED])
async def test_C13_a_self_signed_certificate_is_known_by_its_key(proxy):
    async with registered(BY_KEY, proxy=proxy) as issuer:
        assert (await ask(issuer, self_signed())).claims["cnf"] == {"x5t#S256": thumbprint(self_signed())}
        # the same name with another key
        assert refused(await ask(issuer, make_identity("CN=orders")), 401, "invalid_client")


async def test_a_certificate_that_is_over_proves_nothing():
    over = make_identity("CN=orders,O=Example", issuer=authority(), until=dt.datetime(2021, 1, 1, tzinfo=dt.UTC))
    async with registered(BY_NAME) as issuer:
        assert refused(await ask(issuer, over), 401, "invalid_client")


async def test_C13_the_request_names_the_client_and_needs_a_certificate():
    async with registered(BY_NAME) as issuer:
        answer = await issuer.token(GRANT, client=None, headers=field(client_identity()))
        assert refused(answer, 401, "invalid_client")
        assert refused(await ask(issuer, None), 401, "invalid_client")


async def test_C04_unknown_disabled_and_without_certificate_are_answered_alike():
    async with registered(BY_NAME) as issuer:
        answers = [
            await ask(issuer, client_identity(), client_id=name) for name in ("nobody", "off", "public", "robot")
        ]
        answers.append(await ask(issuer, make_identity("CN=other")))
        assert len({(answer.status, answer.body) for answer in answers}) == 1


async def test_T22_certificates_are_no_way_around_the_limits():
    async with registered(BY_NAME, proxy={**VERIFIED, "failures_per_client": 2}) as issuer:
        for _ in range(2):
            assert (await ask(issuer, make_identity("CN=other"))).status == 401
        assert refused(await ask(issuer, client_identity()), 429, "temporarily_unavailable")


# --- whose header it is -------------------------------------------------------------------------------------


async def test_T25_a_field_from_anybody_but_the_proxy_is_not_looked_at():
    async with registered(BY_NAME, proxy={**VERIFIED, "trusted_proxies": "10.0.0.0/8"}) as issuer:
        assert refused(await ask(issuer, client_identity()), 401, "invalid_client")
        garbage = await issuer.token(GRANT, headers={"Client-Cert": "garbage"})
        assert garbage.status == 200


async def test_T25_a_field_that_was_not_configured_is_not_looked_at():
    async with registered(BY_NAME, proxy={"trusted_proxies": "127.0.0.0/8"}) as issuer:
        assert refused(await ask(issuer, client_identity()), 401, "invalid_client")


async def test_what_the_proxy_writes_and_cannot_be_read_is_refused_and_not_taken_for_none():
    async with registered(BY_NAME) as issuer:
        for value in ("garbage", ":AAAA", field(client_identity())["Client-Cert"] * 2):
            answer = await issuer.token({**GRANT, "client_id": "orders"}, client=None, headers={"Client-Cert": value})
            assert refused(answer, 400, "invalid_request")


async def test_nginx_hands_it_on_as_escaped_pem():
    proxy = {**VERIFIED, "client_certificate_header": "X-Client-Cert", "client_certificate_format": "escaped-pem"}
    async with registered(BY_NAME, proxy=proxy) as issuer:
        headers = {"X-Client-Cert": quote(client_identity().pem.decode(), safe="")}
        answer = await issuer.token({**GRANT, "client_id": "orders"}, client=None, headers=headers)
        assert answer.status == 200
        assert (await issuer.token(GRANT, headers={"X-Client-Cert": ""})).status == 200  # none, says nginx


# --- binding ------------------------------------------------------------------------------------------------


async def test_tokens_are_bound_where_the_client_asks_for_it_however_it_authenticates():
    key = foreign_key("orders-1")
    async with registered(BY_NAME, certificate_bound_access_tokens=True, jwks=key.jwks) as issuer:
        headers = field(self_signed("anybody"))
        answer = await issuer.token(GRANT, headers=headers)
        assert answer.claims["cnf"] == {"x5t#S256": thumbprint(self_signed("anybody"))}
        assert refused(await issuer.token(GRANT), 400, "invalid_request")  # never unbound by leaving it out


async def test_a_client_may_turn_binding_off():
    async with registered(BY_NAME, certificate_bound_access_tokens=False) as issuer:
        assert "cnf" not in (await ask(issuer, client_identity())).claims


async def test_without_a_wish_a_secrets_token_is_not_bound():
    async with registered(BY_NAME) as issuer:
        assert "cnf" not in (await issuer.token(GRANT, headers=field(client_identity()))).claims


async def test_the_record_says_which_certificate_and_why_not():
    async with registered(BY_NAME) as issuer:
        with capture_logs() as logs:
            await ask(issuer, client_identity())
            await ask(issuer, make_identity("CN=other"))
            await ask(issuer, client_identity(), client_id="nobody")
        audit = [entry for entry in logs if entry["event"] in {"token_issued", "token_refused"}]
        assert audit[0]["method"] == "tls_client_auth"
        assert audit[0]["certificate"] == audit[0]["bound_to"] == thumbprint(client_identity())
        assert [entry["reason"] for entry in audit[1:]] == ["the certificate's subject_dn is another", "unknown client"]
        assert audit[2]["client_id"] is None


# --- configuration ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tls",
    [
        {}, {"subject_dn": ""}, {"subject_dn": "orders"}, {"san_ip": "orders"}, {"jwks": {"keys": []}}, {"san": "x"},
        {**BY_NAME, "san_dns": "x"}, {**BY_NAME, **BY_KEY}, {"jwks": {"keys": [{"kty": "oct", "k": "AAAA"}]}}, "x",
    ],
)  # fmt: skip
async def test_an_identity_that_is_not_exactly_one_thing_refuses_the_object(tls):
    async with running(**VERIFIED) as issuer:
        issuer.store.change(ORDERS, tls_client_auth=tls)
        await issuer.refresh()
        assert issuer.issuer.credentials.refused == 1


@pytest.mark.parametrize(
    ("changes", "methods"),
    [
        ({}, []),
        (PROXY, ["self_signed_tls_client_auth"]),
        (VERIFIED, ["tls_client_auth", "self_signed_tls_client_auth"]),
    ],
)
async def test_C14_the_metadata_offer_it_where_certificates_arrive(changes, methods):
    async with running(**changes) as issuer:
        metadata = (await issuer.call("GET", "/.well-known/oauth-authorization-server")).json
    offered = metadata["token_endpoint_auth_methods_supported"]
    assert offered == [*methods, "private_key_jwt", "client_secret_basic", "client_secret_post"]
    assert metadata.get("tls_client_certificate_bound_access_tokens", False) is bool(methods)


# --- a TLS connection without a proxy -----------------------------------------------------------------------


@pytest.fixture
async def over_tls(tmp_path):
    """A function that asks the issuer for a token on a TLS connection with a certificate, or without."""
    server = make_identity("CN=issuer", ip=("127.0.0.1",))
    certificate, key = server.write(tmp_path, "server")
    trusted = tmp_path / "clients.pem"
    trusted.write_bytes(authority().pem + self_signed().pem)
    tls = settings(tls_certificate_file=certificate, tls_private_key_file=key, tls_client_ca_file=trusted)
    async with AsyncExitStack() as stack:
        context = await tls_context(tls, stack)
        issuer = await stack.enter_async_context(running(tls_certificate_file=certificate, tls_private_key_file=key,
                                                         tls_client_ca_file=trusted))  # fmt: skip
        issuer.store.change(ORDERS, tls_client_auth=BY_NAME)
        issuer.store.change("realms/services/clients/slow.json", tls_client_auth=BY_KEY)
        await issuer.refresh()
        served = await stack.enter_async_context(serve(issuer.app, ["127.0.0.1:0"], tls=context, finish_seconds=1.0))

        async def call(identity, *, client_id="orders", headers=None, secret=None):
            trusting = ssl.create_default_context(cafile=str(certificate))
            if identity is not None:
                trusting.load_cert_chain(*identity.write(tmp_path, "client"))
            form = {**GRANT, "client_id": client_id} | ({"client_secret": secret} if secret else {})
            connector = aiohttp.TCPConnector(ssl=trusting)
            fields = {"Content-Type": FORM, **(headers or {})}
            async with (
                aiohttp.ClientSession(connector=connector) as http,
                http.post(served.url + "/oauth2/token", data=encoded(form), headers=fields) as answer,
            ):
                return answer.status, await answer.json()

        yield call


async def test_C13_on_a_tls_connection_the_certificate_is_the_connections(over_tls):
    assert (await over_tls(client_identity()))[0] == 200
    assert (await over_tls(self_signed(), client_id="slow"))[0] == 200
    assert (await over_tls(client_identity("stock")))[0] == 401
    assert (await over_tls(None))[0] == 401
    assert (await over_tls(None, secret=SECRET))[0] == 200  # a certificate is asked for, and not demanded


async def test_T25_on_a_tls_connection_the_field_is_the_callers_and_not_looked_at(over_tls):
    assert (await over_tls(None, headers=field(client_identity())))[0] == 401


async def test_a_certificate_that_nobody_vouches_for_does_not_even_connect(over_tls):
    stranger = make_identity("CN=orders,O=Example")
    with pytest.raises((aiohttp.ClientError, ssl.SSLError)):
        await over_tls(stranger)


def test_the_usual_credentials_are_untouched():
    assert b"tls_client_auth" not in usual_objects()[0][ORDERS]
