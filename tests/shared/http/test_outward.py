"""Where a URL that somebody else chose must not lead (RFC 8725 section 3.10)."""

import ipaddress

import pytest

from tokenry.http.fetch import Failure, FetchFailed, HttpFetcher, Request
from tokenry.http.outward import PublicAddresses


@pytest.mark.parametrize(
    "address", ["93.184.216.34", "2606:2800:220:1::1", "::ffff:93.184.216.34", "64:ff9b::5db8:d822"]
)
def test_C12_a_public_address_is_fine(address):
    assert PublicAddresses()(address)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.9.9.9", "::1", "0.0.0.0", "::", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254",
        "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "100.64.0.1", "224.0.0.1", "ff02::1", "255.255.255.255",
        "::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::",
        "2001:0:7f00:1::", "192.0.2.1", "198.18.0.1", "240.0.0.1", "localhost", "", "x", "1.2.3",
    ],
)  # fmt: skip
def test_C12_loopback_link_local_private_and_disguised_ones_are_not(address):
    assert not PublicAddresses()(address)


def test_C12_a_private_network_may_be_named():
    permits = PublicAddresses(besides=[ipaddress.ip_network("10.1.0.0/16"), ipaddress.ip_network("fd00::/8")])
    assert permits("10.1.2.3")
    assert permits("::ffff:10.1.2.3")
    assert permits("fd00::5")
    assert not permits("10.2.0.1")
    assert not permits("127.0.0.1")


@pytest.mark.parametrize("url", ["https://localhost:1/", "https://127.0.0.1:1/", "https://[::1]:1/"])
def test_C12_the_fetcher_does_not_connect_where_it_may_not(url):
    with pytest.raises(FetchFailed) as refused:
        HttpFetcher(permits=PublicAddresses()).fetch(Request(url=url))
    assert refused.value.failure is Failure.BAD_URL
    with pytest.raises(FetchFailed) as refused:
        HttpFetcher().fetch(Request(url=url))
    assert refused.value.failure is Failure.CONNECT
