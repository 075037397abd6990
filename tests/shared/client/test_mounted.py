"""Credentials and tokens as Kubernetes mounts them."""

import pytest

from tokenry import ClientCredentials, ConfigurationError, FileTokenSource, TokenFetchError, default_source
from tokenry.testing import FakeIssuer


@pytest.fixture
def issuer():
    issuer = FakeIssuer()
    issuer.clients["orders-client"] = "first"
    return issuer


def mount(folder, *, secret="first"):
    (folder / "orders-client-id").write_text("orders-client\n")
    (folder / "orders-client-secret").write_text(secret + "\n")


def source(issuer, folder, **more):
    environ = {"TOKENRY_ISSUER": issuer.issuer, "CREDENTIALS_DIR": str(folder)}
    return default_source("a", name="orders", environ=environ, fetcher=issuer, **more)


def test_a_mounted_client_is_used_and_read_again(tmp_path, issuer):
    mount(tmp_path)
    tokens = source(issuer, tmp_path)
    assert isinstance(tokens, ClientCredentials)
    assert issuer.validator().validate(tokens.get().value).client_id == "orders-client"
    issuer.clients["orders-client"] = "second"
    mount(tmp_path, secret="second")
    assert tokens.invalidate()
    assert tokens.get()
    assert "second" not in repr(tokens)


def test_a_mounted_token_is_before_a_mounted_client(tmp_path, issuer):
    mount(tmp_path)
    (tmp_path / "orders-token-secret").write_text("mounted")
    assert isinstance(source(issuer, tmp_path), FileTokenSource)


def test_half_a_mounted_client_is_an_error_that_names_the_file(tmp_path, issuer):
    (tmp_path / "orders-client-id").write_text("orders-client")
    with pytest.raises(TokenFetchError, match="orders-client-secret"):
        source(issuer, tmp_path).get()


@pytest.mark.parametrize("name", ["../x", "a/b", ".x", "a\0b"])
def test_a_name_leads_nowhere_else(tmp_path, issuer, name):
    with pytest.raises(ConfigurationError):
        default_source(name=name, environ={"TOKENRY_ISSUER": issuer.issuer, "CREDENTIALS_DIR": str(tmp_path)})
    with pytest.raises(ConfigurationError):
        ClientCredentials(issuer=issuer.issuer, credentials_dir=tmp_path, credentials_name=name, environ={})


@pytest.mark.parametrize(("kind", "fits"), [("Bearer\n", True), ("bearer", True), ("Basic", False), ("", False)])
def test_the_type_beside_a_mounted_token_has_to_be_bearer(tmp_path, kind, fits):
    (tmp_path / "orders-token-secret").write_text("mounted")
    (tmp_path / "orders-token-type").write_text(kind)
    tokens = FileTokenSource(tmp_path / "orders-token-secret")
    if fits:
        assert tokens.get().value == "mounted"
    else:
        with pytest.raises(TokenFetchError):
            tokens.get()
