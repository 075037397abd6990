"""The fault proxy breaks what it is told to break, and nothing else."""

import socket
import socketserver
import threading
import time
from collections.abc import Iterator

import pytest

from tests.support.fault_proxy import FaultProxy

PATIENCE = 20.0  # seconds until something that must come has come
MOMENT = 0.3  # seconds in which something would have come that must not


class _Echo(socketserver.BaseRequestHandler):
    """Sends back what it gets, says what arrived, and ends in order when the other side does."""

    def handle(self) -> None:
        while data := self.request.recv(65_536):
            assert isinstance(self.server, _Server)
            with self.server.arrival:
                self.server.arrived += data
                self.server.arrival.notify_all()
            self.request.sendall(data)
        self.request.sendall(b"bye")


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Echo)
        self.arrival = threading.Condition()
        self.arrived = b""

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # connections that are reset are what this is about

    def heard(self, data: bytes) -> bool:
        with self.arrival:
            return self.arrival.wait_for(lambda: data in self.arrived, PATIENCE)


@pytest.fixture
def echo() -> Iterator[_Server]:
    with _Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def proxy(echo: _Server) -> Iterator[FaultProxy]:
    host, port = echo.server_address[:2]
    with FaultProxy((str(host), port)) as made:
        yield made


def connect(proxy: FaultProxy) -> socket.socket:
    return socket.create_connection(proxy.address, timeout=PATIENCE)


def read(connection: socket.socket, number: int) -> bytes:
    data = b""
    while len(data) < number and (more := connection.recv(number - len(data))):
        data += more
    return data


def silent(connection: socket.socket) -> bool:
    """Tell whether nothing comes for a moment."""
    connection.settimeout(MOMENT)
    try:
        return connection.recv(1) is None
    except TimeoutError:
        return True
    finally:
        connection.settimeout(PATIENCE)


def test_it_passes_everything_on_and_ends_in_order(proxy: FaultProxy) -> None:
    data = bytes(range(256)) * 4096
    with connect(proxy) as connection:
        sender = threading.Thread(target=connection.sendall, args=(data,))
        sender.start()
        assert read(connection, len(data)) == data
        sender.join()
        connection.shutdown(socket.SHUT_WR)
        assert read(connection, 3) == b"bye"
        assert connection.recv(1) == b""


def test_a_delay_holds_every_byte_back_and_keeps_the_line_as_wide(proxy: FaultProxy) -> None:
    with connect(proxy) as connection:
        proxy.delay(0.2)
        began = time.monotonic()
        for _ in range(20):
            connection.sendall(b"0123456789")
            time.sleep(0.01)  # so that they are twenty pieces on their way
        assert read(connection, 200) == b"0123456789" * 20
        assert 0.4 <= time.monotonic() - began < 20 * 0.2  # both ways, and not one piece after the other
        proxy.delay(30)
        connection.sendall(b"late")
        assert silent(connection)
        proxy.pass_()
        assert read(connection, 4) == b"late"


def test_a_delay_of_one_direction_leaves_the_other_alone(echo: _Server, proxy: FaultProxy) -> None:
    with connect(proxy) as connection:
        proxy.delay(30, "down")
        connection.sendall(b"ask")
        assert echo.heard(b"ask")
        assert silent(connection)
        proxy.delay(0, "down")
        assert read(connection, 3) == b"ask"


def test_a_cut_resets_what_is_open_and_refuses_what_is_new(proxy: FaultProxy) -> None:
    with connect(proxy) as connection:
        connection.sendall(b"a")
        assert read(connection, 1) == b"a"
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
        with pytest.raises(ConnectionRefusedError):
            connect(proxy)
        assert proxy.connections == 0
    proxy.pass_()
    with connect(proxy) as connection:
        connection.sendall(b"b")
        assert read(connection, 1) == b"b"


def test_a_reset_ends_connections_and_takes_new_ones(proxy: FaultProxy) -> None:
    with connect(proxy) as connection:
        connection.sendall(b"a")
        assert read(connection, 1) == b"a"
        proxy.reset()
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    with connect(proxy) as connection:
        connection.sendall(b"b")
        assert read(connection, 1) == b"b"


def test_a_black_hole_says_nothing_and_gives_back_what_it_held(echo: _Server, proxy: FaultProxy) -> None:
    with connect(proxy) as connection:
        proxy.blackhole()
        connection.sendall(b"lost?")
        assert silent(connection)
        assert echo.arrived == b""
        with connect(proxy) as another:  # seems to open
            another.sendall(b"x")
            assert silent(another)
        proxy.pass_()
        assert read(connection, 5) == b"lost?"


def test_half_open_lets_questions_arrive_and_no_answers(echo: _Server, proxy: FaultProxy) -> None:
    with connect(proxy) as connection:
        proxy.blackhole("down")
        connection.sendall(b"done, and nobody hears of it")
        assert echo.heard(b"done, and nobody hears of it")
        assert silent(connection)


def test_the_other_half_lets_answers_arrive_and_no_questions(echo: _Server, proxy: FaultProxy) -> None:
    with connect(proxy) as connection:
        proxy.delay(0.5, "down")
        connection.sendall(b"first")
        assert echo.heard(b"first")
        proxy.blackhole("up")
        connection.sendall(b"second")
        assert read(connection, 5) == b"first"
        assert silent(connection)
        assert echo.arrived == b"first"


def test_a_throttled_line_is_as_narrow_as_asked(proxy: FaultProxy) -> None:
    with connect(proxy) as connection:
        proxy.throttle(100_000, "down")
        began = time.monotonic()
        connection.sendall(b"x" * 50_000)
        assert read(connection, 50_000) == b"x" * 50_000
        assert time.monotonic() - began > 0.4
    with pytest.raises(ValueError, match="blackhole"):
        proxy.throttle(0)


def test_a_narrow_line_is_felt_by_the_sender(proxy: FaultProxy) -> None:
    with connect(proxy) as connection:
        proxy.blackhole("up")
        connection.settimeout(MOMENT)
        with pytest.raises(TimeoutError):
            connection.sendall(b"x" * 100_000_000)


def test_nobody_behind_it_is_told_to_the_client(proxy: FaultProxy, echo: _Server) -> None:
    echo.server_close()
    with connect(proxy) as connection, pytest.raises(ConnectionResetError):
        connection.recv(1)
