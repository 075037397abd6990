import pytest

from tokenry.serving.addresses import (
    ListenAddress,
    client_address,
    is_loopback_host,
    parse_listen_address,
    parse_networks,
)

PROXIES = parse_networks("10.0.0.0/8 fd00::/8")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:8080", ListenAddress(host="127.0.0.1", port=8080)),
        (":9021", ListenAddress(host="", port=9021)),
        ("[::1]:80", ListenAddress(host="::1", port=80)),
        ("unix:/run/x.sock", ListenAddress(path="/run/x.sock")),
    ],
)
def test_a_listen_address_is_read(text, expected):
    assert parse_listen_address(text) == expected


@pytest.mark.parametrize(
    "text", ["", "8080", "host", "host:", "host:http", "host:70000", "::1:80", "unix:x", "h:-1", "h:²"]
)
def test_anything_else_is_no_listen_address(text):
    with pytest.raises(ValueError, match=r"write|needs"):
        parse_listen_address(text)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost", "a.localhost"])
def test_this_machine_is_loopback(host):
    assert is_loopback_host(host)


@pytest.mark.parametrize("host", ["", "0.0.0.0", "::", "10.0.0.1", "localhost.evil.test", "example.org"])
def test_another_is_not(host):
    assert not is_loopback_host(host)


@pytest.mark.parametrize("text", ["10.0.0.1/8", "10.0.0.0/33", "x"])
def test_a_network_with_host_bits_or_none_at_all_is_refused(text):
    with pytest.raises(ValueError, match="write networks"):
        parse_networks(text)


def test_without_trusted_proxies_the_header_is_never_believed():
    assert client_address("1.2.3.4", forwarded_for=["9.9.9.9"], trusted_proxies=()) == "1.2.3.4"


def test_a_stranger_cannot_name_its_own_address():
    assert client_address("1.2.3.4", forwarded_for=["9.9.9.9"], trusted_proxies=PROXIES) == "1.2.3.4"


@pytest.mark.parametrize(
    ("forwarded", "caller"),
    [
        (["5.6.7.8"], "5.6.7.8"),
        (["6.6.6.6, 5.6.7.8"], "5.6.7.8"),  # the left part is what the caller wrote
        (["6.6.6.6", "5.6.7.8, 10.1.1.1"], "5.6.7.8"),
        (["10.2.2.2"], "10.2.2.2"),
        ([], "10.0.0.1"),
        (["garbage"], "10.0.0.1"),
        (["garbage, 10.1.1.1"], "10.1.1.1"),
        (["[2001:db8::1]:4711"], "2001:db8::1"),
        (["5.6.7.8:4711"], "5.6.7.8"),
        (["::ffff:5.6.7.8"], "5.6.7.8"),
        ([""], "10.0.0.1"),
        (["1.1.1.1," * 5000 + "5.6.7.8"], "5.6.7.8"),
    ],
)
def test_the_caller_is_the_first_address_from_the_right_that_is_no_proxy(forwarded, caller):
    assert client_address("10.0.0.1", forwarded_for=forwarded, trusted_proxies=PROXIES) == caller


def test_a_unix_socket_has_no_address_of_its_own():
    assert client_address("", forwarded_for=[], trusted_proxies=()) == "unix"
    assert client_address(None, forwarded_for=["5.6.7.8"], trusted_proxies=PROXIES) == "5.6.7.8"
