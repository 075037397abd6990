import asyncio
import datetime as dt
import json
import math
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from contextlib import AsyncExitStack, closing, contextmanager
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path

import pytest

from tests.shared.serving.test_application import make_app
from tests.support.certificates import authority, make_identity
from tokenry.errors import ConfigurationError
from tokenry.serving.metrics import Metrics
from tokenry.serving.server import serve, tls_context
from tokenry.serving.settings import ServiceSettings

SERVICE = Path(__file__).parent / "service_for_tests.py"


@contextmanager
def service(**environ):
    """Run the small service; yields the process and its first address, once it says that it listens."""
    process = subprocess.Popen(
        [sys.executable, SERVICE],
        env={
            "PATH": os.environ["PATH"],
            "TOKENRY_LISTEN_ADDRESS": "127.0.0.1:0",
            "TOKENRY_DRAIN_SECONDS": "0",
            **environ,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        lines = []
        for line in process.stdout:
            lines.append(json.loads(line))
            if lines[-1]["event"] == "listening":
                break
        yield process, lines
    finally:
        process.kill()
        process.communicate()


def get(address, path, timeout=5):
    host, _, port = address.rpartition(":")
    with closing(HTTPConnection(host, int(port), timeout=timeout)) as connection:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_stop_finishes_what_is_in_flight_and_exits_0(number, loop):
    with service(TOKENRY_EVENT_LOOP=loop) as (process, lines):
        address = lines[-1]["addresses"][0]
        answers = []
        asking = threading.Thread(target=lambda: answers.append(get(address, "/slow")))
        asking.start()
        time.sleep(0.4)
        process.send_signal(number)
        asking.join()
        out, err = process.communicate(timeout=10)
        assert answers == [(200, "finished")]
        assert (process.returncode, err) == (0, "")
        assert [json.loads(line)["event"] for line in out.splitlines()] == ["draining", "request", "stopped"]


@pytest.mark.parametrize(("asked", "used"), [("auto", "aws-lc"), ("aws-lc", "aws-lc"), ("openssl", "openssl")])
def test_it_says_what_signatures_are_verified_with(asked, used):
    with service(TOKENRY_VERIFY_WITH=asked) as (_, lines):
        assert lines[-1]["verifies_with"] == used


def test_it_does_not_start_where_the_arithmetic_that_is_asked_for_is_faulty(tmp_path):
    faulty = tmp_path / "awscrt"
    faulty.mkdir()
    (faulty / "__init__.py").touch()
    (faulty / "crypto.py").write_text(
        "class EC:\n"
        "    new_key_from_der_data = classmethod(lambda cls, der: cls())\n"
        "    def verify(self, digest, signature): return True\n"
    )
    with service(TOKENRY_VERIFY_WITH="aws-lc", PYTHONPATH=str(tmp_path)) as (process, _):
        _, err = process.communicate(timeout=10)
        assert process.returncode == 2
        assert "TOKENRY_VERIFY_WITH: aws-lc: awscrt is not installed, too old or faulty; install" in err
    with service(PYTHONPATH=str(tmp_path)) as (_, lines):
        assert lines[-1]["verifies_with"] == "openssl"


def test_while_settling_it_is_not_ready_and_still_answers():
    with service(TOKENRY_DRAIN_SECONDS="5s") as (process, lines):
        address = lines[-1]["addresses"][0]
        assert get(address, "/readyz")[0] == 200
        process.terminate()
        time.sleep(0.3)
        assert get(address, "/readyz")[0] == 503
        assert get(address, "/healthz")[0] == 200
        process.terminate()  # a second signal skips the settling
        assert process.wait(3) == 0


def test_metrics_have_a_port_of_their_own():
    with service(TOKENRY_METRICS_LISTEN_ADDRESS="127.0.0.1:0") as (_, lines):
        operations = next(line["addresses"][0] for line in lines if line["event"] == "metrics")
        assert get(lines[-1]["addresses"][0], "/metrics")[0] == 404
        status, text = get(operations, "/metrics")
        assert status == 200
        assert "tokenry_build_info" in text
        assert get(operations, "/readyz")[0] == 200


def test_wrong_settings_are_all_named_and_exit_2():
    done = subprocess.run(
        [sys.executable, SERVICE, "--check-settings"],
        env={"TOKENRY_LISTEN_ADDRESS": "nonsense", "TOKENRY_DRAIN_SECONDS": "soon"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "TOKENRY_LISTEN_ADDRESS" in done.stderr
    assert "TOKENRY_DRAIN_SECONDS" in done.stderr


def test_an_address_in_use_is_named_and_exits_2():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = subprocess.run(
            [sys.executable, SERVICE],
            env={"TOKENRY_LISTEN_ADDRESS": address},
            capture_output=True,
            text=True,
            check=False,
            timeout=20,
        )
    assert done.returncode == 2
    assert f"cannot listen on {address}" in done.stderr


async def test_it_listens_on_a_unix_socket_and_leaves_nothing_behind(tmp_path):
    path = tmp_path / "s.sock"
    path.touch()
    path.unlink()
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(path))
    dead.close()  # as a process that was killed leaves it
    import aiohttp

    async with (
        serve(make_app(), [f"unix:{path}"]),
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as session,
        session.get("http://x/who") as answer,
    ):
        assert (await answer.json())["address"] == "unix"
    assert not path.exists()


async def test_a_unix_socket_that_somebody_serves_is_not_taken_away(tmp_path):
    path = tmp_path / "s.sock"
    async with serve(make_app(), [f"unix:{path}"]):
        with pytest.raises(ConfigurationError, match="cannot listen"):
            async with serve(make_app(), [f"unix:{path}"]):
                pass
        assert path.exists()


def certificate(folder, name, days=1):
    """Write a certificate for 127.0.0.1, signed by itself, and its key; return both paths."""
    import datetime as dt
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + dt.timedelta(days=days))
        .add_extension(address, critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "cert.pem", folder / "key.pem"


def test_it_serves_tls_with_a_certificate_and_never_plain_http_then(tmp_path):
    certificate_file, key_file = certificate(tmp_path, "service")
    environ = {"TOKENRY_TLS_CERTIFICATE_FILE": str(certificate_file), "TOKENRY_TLS_PRIVATE_KEY_FILE": str(key_file)}
    with service(**environ) as (_, lines):
        host, _, port = lines[-1]["addresses"][0].rpartition(":")
        trusting = ssl.create_default_context(cafile=str(certificate_file))
        with closing(HTTPSConnection(host, int(port), timeout=5, context=trusting)) as connection:
            connection.request("GET", "/healthz")
            assert connection.getresponse().status == 200
        with pytest.raises((OSError, HTTPException)):
            get(lines[-1]["addresses"][0], "/healthz")


async def test_F51_a_certificate_that_changes_is_loaded_without_a_restart(tmp_path):
    certificate_file, key_file = certificate(tmp_path, "first")
    settings = ServiceSettings(tls_certificate_file=certificate_file, tls_private_key_file=key_file)
    async with AsyncExitStack() as stack:
        context = await tls_context(settings, stack, check_seconds=0.05)
        async with serve(make_app(), ["127.0.0.1:0"], tls=context) as server:
            host, _, port = server.addresses[0].rpartition(":")

            def served():
                return ssl.get_server_certificate((host, int(port)), timeout=5)

            first = await asyncio.to_thread(served)
            assert first == certificate_file.read_text()
            old_key = key_file.read_text()
            certificate(tmp_path, "second")
            new_key = key_file.read_text()
            for half_written in (old_key, "half written"):
                key_file.write_text(half_written)
                await asyncio.sleep(0.2)
                assert await asyncio.to_thread(served) == first
            key_file.write_text(new_key)
            async with asyncio.timeout(5):
                while await asyncio.to_thread(served) == first:  # noqa: ASYNC110 -- another party's state
                    await asyncio.sleep(0.05)
            assert await asyncio.to_thread(served) == certificate_file.read_text()


async def test_F51_the_end_of_the_certificate_that_is_served_is_a_metric(tmp_path):
    metrics, ends = Metrics(service="example"), [dt.datetime(year, 5, 6, tzinfo=dt.UTC) for year in (2047, 2048)]
    first, second = (make_identity("CN=service", ip=("127.0.0.1",), until=end) for end in ends)
    certificate_file, key_file = first.write(tmp_path, "service")
    certificate_file.write_bytes(first.pem + authority().pem)  # its own comes first, then the chain

    def shown():
        return metrics.registry.get_sample_value("tokenry_certificate_expiry_timestamp_seconds")

    assert math.isnan(shown())  # plain HTTP until then
    settings = ServiceSettings(tls_certificate_file=certificate_file, tls_private_key_file=key_file)
    async with AsyncExitStack() as stack:
        context = await tls_context(settings, stack, check_seconds=0.02, on_expiry=metrics.certificate_expiry.set)
        async with serve(make_app(), ["127.0.0.1:0"], tls=context) as server:
            host, _, port = server.addresses[0].rpartition(":")
            assert shown() == ends[0].timestamp()
            certificate_file.write_bytes(second.pem)  # without its key: what is served is still the first
            await asyncio.sleep(0.2)
            assert shown() == ends[0].timestamp()
            key_file.write_bytes(second.key_pem)
            async with asyncio.timeout(5):
                while shown() != ends[1].timestamp():  # noqa: ASYNC110 -- another party's state
                    await asyncio.sleep(0.02)
            served = await asyncio.to_thread(ssl.get_server_certificate, (host, int(port)), timeout=5)
            assert served == second.pem.decode()


def test_a_process_that_serves_tls_says_when_its_certificate_ends(tmp_path):
    identity = make_identity("CN=service", ip=("127.0.0.1",), until=dt.datetime(2047, 5, 6, tzinfo=dt.UTC))
    certificate_file, key_file = identity.write(tmp_path, "service")
    environ = {
        "TOKENRY_TLS_CERTIFICATE_FILE": str(certificate_file),
        "TOKENRY_TLS_PRIVATE_KEY_FILE": str(key_file),
        "TOKENRY_METRICS_LISTEN_ADDRESS": "127.0.0.1:0",
    }
    with service(**environ) as (_, lines):
        operations = next(line["addresses"][0] for line in lines if line["event"] == "metrics")
        _, text = get(operations, "/metrics")
    (shown,) = re.findall(r"^tokenry_certificate_expiry_timestamp_seconds (\S+)$", text, re.MULTILINE)
    assert float(shown) == dt.datetime(2047, 5, 6, tzinfo=dt.UTC).timestamp()


def test_a_certificate_that_cannot_be_loaded_is_named_and_exits_2(tmp_path):
    (tmp_path / "x").write_text("nonsense")
    path = str(tmp_path / "x")
    done = subprocess.run(
        [sys.executable, SERVICE],
        env={
            "TOKENRY_LISTEN_ADDRESS": "127.0.0.1:0",
            "TOKENRY_TLS_CERTIFICATE_FILE": path,
            "TOKENRY_TLS_PRIVATE_KEY_FILE": path,
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )
    assert done.returncode == 2
    assert "TOKENRY_TLS_CERTIFICATE_FILE" in done.stderr
