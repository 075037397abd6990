from contextlib import suppress
from pathlib import Path
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from tokenry.errors import ConfigurationError
from tokenry.secret import Secret
from tokenry.serving.settings import (
    Duration,
    Env,
    HttpUrl,
    Names,
    SecretText,
    ServiceSettings,
    describe,
    parse_duration,
    read_setting_file,
)


class Example(ServiceSettings):
    own_prefixes = ("TOKENRY_EXAMPLE_",)

    store: Annotated[HttpUrl, Env("TOKENRY_STORE", "OLD_STORE")] = Field(description="The store; name it.")
    wait: Duration = Field(25.0, description="Seconds.")
    salt: SecretText | None = Field(None, description="Secret.")
    plain: str | None = Field(None, description="Without any rule of its own.")
    names: Names = Field((), description="Names.")
    count: int = Field(3, ge=1, description="How many.")

    def contradictions(self):
        yield from super().contradictions()
        if self.wait > 30 and self.count > 5:
            yield "TOKENRY_WAIT and TOKENRY_COUNT: too much of both; lower one"


GOOD = {"TOKENRY_STORE": "https://store.test"}


def faults(environ, **more):
    with pytest.raises(ConfigurationError) as caught:
        Example.from_environment(environ, **more)
    return caught.value.faults


def test_settings_are_read_from_the_given_environment_alone(monkeypatch):
    monkeypatch.setenv("TOKENRY_WAIT", "1")
    assert Example.from_environment(GOOD).wait == 25.0


def test_values_are_converted():
    settings = Example.from_environment(
        {
            **GOOD,
            "TOKENRY_WAIT": "1m30s",
            "TOKENRY_NAMES": "a, b c",
            "TOKENRY_SALT": "s",
            "TOKENRY_REUSE_PORT": "true",
            "TOKENRY_TRUSTED_PROXIES": "10.0.0.0/8,::1",
        }
    )
    assert (settings.wait, settings.names, settings.reuse_port) == (90.0, ("a", "b", "c"), True)
    assert settings.salt == Secret("s")
    assert [str(network) for network in settings.trusted_proxies] == ["10.0.0.0/8", "::1/128"]


def test_an_old_name_is_read():
    assert Example.from_environment({"OLD_STORE": "https://old.test"}).store == "https://old.test"


def test_two_names_for_one_setting_are_a_fault():
    assert faults({**GOOD, "OLD_STORE": "https://old.test"}) == (
        "TOKENRY_STORE and OLD_STORE set the same thing; keep one of them",
    )


def test_an_empty_value_counts_as_absent():
    assert Example.from_environment({**GOOD, "TOKENRY_WAIT": ""}).wait == 25.0


def test_all_faults_are_told_at_once_each_with_its_name_and_what_to_do():
    found = faults(
        {
            "TOKENRY_WAIT": "soon",
            "TOKENRY_COUNT": "0",
            "TOKENRY_LISTEN_ADDRESS": "0.0.0.0:80",
            "TOKENRY_DRAIN_SECOND": "3",
            "TOKENRY_EXAMPLE_UNKNOWN": "1",
        }
    )
    assert [fault.partition(":")[0] for fault in found] == [
        "TOKENRY_DRAIN_SECOND",
        "TOKENRY_EXAMPLE_UNKNOWN",
        "TOKENRY_STORE",
        "TOKENRY_WAIT",
        "TOKENRY_COUNT",
        "TOKENRY_LISTEN_ADDRESS",
    ]
    assert "did you mean TOKENRY_DRAIN_SECONDS?" in found[0]
    assert found[2] == "TOKENRY_STORE: is not set; The store; name it."
    assert "30s, 1h10m" in found[3]
    assert "TOKENRY_TRUSTED_PROXIES" in found[5]


def test_a_rule_between_settings_is_told_beside_a_faulty_field():
    found = faults({"TOKENRY_STORE": "ftp://x", "TOKENRY_WAIT": "40", "TOKENRY_COUNT": "6", "TOKENRY_PLAIN": "x"})
    assert len(found) == 2
    assert any(fault.startswith("TOKENRY_WAIT and TOKENRY_COUNT") for fault in found)


def test_a_rule_about_a_faulty_setting_is_left_out():
    assert len(faults({**GOOD, "TOKENRY_WAIT": "forty", "TOKENRY_COUNT": "6"})) == 1


def test_another_roles_settings_are_no_fault():
    Example.from_environment({**GOOD, "TOKENRY_ENVELOPE_KEY_FILE": "/x", "PATH": "/bin"})


@pytest.mark.parametrize("name", ["TOKENRY_STORE", "TOKENRY_SALT_FILE", "TOKENRY_WAIT", "TOKENRY_COUNT"])
def test_a_fault_never_repeats_the_value(name):
    canary = "hunter2-canary"
    text = " ".join(faults({**GOOD, name: f"://{canary}"}))
    assert canary not in text


@pytest.mark.parametrize(
    "url",
    ["issuer.test", "ftp://a.test", "https://", "https://user:pw@a.test", "https://a.test?x=1", "https://a.test#x",
     "https://a.test/ b", "https://a.test:0", "https://a.test:99999", "https://ä.test", "https://a.test?"],
)  # fmt: skip
def test_a_url_that_is_not_absolute_and_plain_is_a_fault(url):
    assert len(faults({"TOKENRY_STORE": url})) == 1


def test_plain_http_to_another_host_needs_its_name_in_a_setting():
    environ = {"TOKENRY_STORE": "http://store.mesh:8080"}
    assert "TOKENRY_PLAIN_HTTP_HOSTS" in faults(environ)[0]
    Example.from_environment({**environ, "TOKENRY_PLAIN_HTTP_HOSTS": "store.mesh"})
    Example.from_environment({"TOKENRY_STORE": "http://127.0.0.1:9080"})


@pytest.mark.parametrize("address", ["0.0.0.0:80", ":8080", "[::]:80", "service.internal:80"])
def test_plain_http_off_loopback_needs_a_named_proxy_network(address):
    environ = {**GOOD, "TOKENRY_LISTEN_ADDRESS": address}
    assert "plain HTTP" in faults(environ)[0]
    Example.from_environment({**environ, "TOKENRY_TRUSTED_PROXIES": "10.0.0.0/8"})


def test_certificate_and_key_come_together():
    assert "both or neither" in faults({**GOOD, "TOKENRY_TLS_CERTIFICATE_FILE": "/a"})[0]


def test_client_certificates_need_tls_or_a_named_proxy():
    assert "need TLS here" in faults({**GOOD, "TOKENRY_TLS_CLIENT_CA_FILE": "/ca"})[0]
    environ = {**GOOD, "TOKENRY_CLIENT_CERTIFICATE_HEADER": "Client-Cert"}
    assert "anybody could write" in faults(environ)[0]
    settings = Example.from_environment({**environ, "TOKENRY_TRUSTED_PROXIES": "10.0.0.0/8"})
    assert settings.takes_client_certificates
    assert not settings.verifies_client_certificates
    assert not Example.from_environment(GOOD).takes_client_certificates


# --- files --------------------------------------------------------------------------------------------------


def test_a_value_may_stand_in_a_file(tmp_path):
    path = tmp_path / "salt"
    path.write_text("pepper\n")
    assert Example.from_environment({**GOOD, "TOKENRY_SALT_FILE": str(path)}).salt == Secret("pepper")


def test_a_file_and_a_value_for_one_setting_are_a_fault(tmp_path):
    path = tmp_path / "salt"
    path.write_text("pepper")
    found = faults({**GOOD, "TOKENRY_SALT": "a", "TOKENRY_SALT_FILE": str(path)})
    assert found == ("TOKENRY_SALT and TOKENRY_SALT_FILE set the same thing; keep one of them",)


@pytest.mark.parametrize("content", [None, b"x" * 65_537, b"\xff\xfe"])
def test_a_file_that_cannot_be_a_setting_is_a_fault(tmp_path, content):
    path = tmp_path / "salt"
    if content is not None:
        path.write_bytes(content)
    assert faults({**GOOD, "TOKENRY_SALT_FILE": str(path)})[0].startswith("TOKENRY_SALT_FILE: the file")


def test_a_file_keeps_everything_but_its_line_end(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b" a b \r\n")
    assert read_setting_file(Path(path)) == " a b "


# --- durations ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30),
        ("1h10m", 4200),
        ("100ms", 0.1),
        ("45", 45),
        ("1.5h", 5400),
        ("2m30s", 150),
        ("0", 0),
        ("500us", 5e-4),
    ],
)
def test_durations_are_read_as_plan_b_writes_them(text, seconds):
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "s", "10 s", "1d", "-5s", "1e9", "soon", "10sm", "5s.", "9999999h", "٣s"])
def test_anything_else_is_no_duration(text):
    with pytest.raises(ValueError, match=r"duration|ten years"):
        parse_duration(text)


@given(st.text(max_size=12))
def test_a_duration_is_read_or_refused_and_nothing_else(text):
    with suppress(ValueError):
        assert 0 <= parse_duration(text) <= 10 * 366 * 86_400


# --- description --------------------------------------------------------------------------------------------


def test_every_setting_is_described():
    described = {item.name: item for item in describe(Example)}
    assert described["TOKENRY_STORE"].required
    assert described["TOKENRY_STORE"].other_names == ("OLD_STORE",)
    assert (described["TOKENRY_WAIT"].type, described["TOKENRY_WAIT"].default) == ("duration", "25")
    assert described["TOKENRY_SALT"].secret
    assert described["TOKENRY_LISTEN_ADDRESS"].default == "127.0.0.1:8080"
    assert all(item.description for item in described.values())


def test_settings_cannot_be_changed():
    settings = Example.from_environment(GOOD)
    with pytest.raises(ValueError, match="frozen"):
        settings.wait = 3
