"""One trace through all three services, as processes, at a collector that speaks OTLP."""

import threading
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.support.http import call
from tests.support.platform import SERVICES, Deployment
from tests.support.processes import Processes
from tokenry.http.fetch import Headers, Request, Response
from tokenry.testing.server import LoopbackServer

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}


class Collector:
    """What was sent: (service, name of the span, span id, parent's id) of our trace."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, str, bytes, bytes]] = []
        self.bodies: list[bytes] = []
        self.came = threading.Event()
        self.server = LoopbackServer(self.take)

    def take(self, request: Request) -> Response:
        assert request.url.endswith("/v1/traces")
        self.bodies.append(request.body or b"")
        for of_service in ExportTraceServiceRequest.FromString(request.body or b"").resource_spans:
            resource = {each.key: each.value.string_value for each in of_service.resource.attributes}
            for scope in of_service.scope_spans:
                self.spans += [
                    (resource["service.name"], span.name, span.span_id, span.parent_span_id)
                    for span in scope.spans
                    if span.trace_id.hex() == TRACE
                ]
        self.came.set()
        return Response(status=200, headers=Headers([]), body=b"")

    def wait_for(self, count: int) -> None:
        while len(self.spans) < count:
            assert self.came.wait(60), f"only {self.spans}"
            self.came.clear()


@pytest.mark.processes
def test_one_trace_goes_through_all_three_services_and_carries_no_secret(tmp_path: Path) -> None:
    processes, collector = Processes(tmp_path), Collector()
    deployment = Deployment(tmp_path, processes)
    deployment.use_folder()
    deployment.use_sqlite()
    for service in SERVICES:
        deployment.add_environment(
            service, {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.server.url, "OTEL_BSP_SCHEDULE_DELAY": "200"}
        )
    try:
        deployment.start()
        token, admin = deployment.token(), deployment.admin_token()
        person = deployment.identities.admin
        answer = call(
            "POST",
            deployment.url("tokeninfo", "/oauth2/introspect"),
            form={"token": token, "realm": "/services"},
            basic=(person["client_id"], person["client_secret"]),
            headers=PARENT,
        )
        assert answer.status in {200, 403}, answer  # either way token info has asked the issuer
        revoked = call(
            "POST",
            deployment.url("revocation", "/revocations"),
            document={"type": "TOKEN", "data": {"token": token}},
            bearer=admin,
            headers=PARENT,
        )
        assert revoked.status == 201
        collector.wait_for(3)
    finally:
        processes.end()
        collector.server.close()
    by_service = {service: (name, own, parent) for service, name, own, parent in collector.spans}
    assert by_service["tokenry-tokeninfo"][0] == "POST /oauth2/introspect"
    assert by_service["tokenry-revocation"][0] == "POST /revocations"
    assert by_service["tokenry-issuer"][0].startswith("POST /oauth2/")
    assert by_service["tokenry-issuer"][2] == by_service["tokenry-tokeninfo"][1], "the issuer's span is a child"
    sent = b"".join(collector.bodies)
    for secret in (token, admin, person["client_secret"]):
        assert secret.encode() not in sent
