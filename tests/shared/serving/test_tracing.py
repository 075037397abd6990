"""Traces over OTLP, as a collector receives them."""

import asyncio
import threading

import aiohttp
import pytest
from aiohttp import web
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from structlog.testing import capture_logs

from tokenry.errors import ConfigurationError
from tokenry.serving.access_log import _add_request_id
from tokenry.serving.application import create_base_app
from tokenry.serving.health import Health
from tokenry.serving.metrics import Metrics
from tokenry.serving.server import serve
from tokenry.serving.settings import ServiceSettings
from tokenry.serving.tracing import TRACES, TraceIds, Traces, current_trace, trace_headers, traces_from
from tokenry.testing.clock import FakeClock

CALLER = TraceIds("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", 1)


@pytest.fixture
def spans():
    return InMemorySpanExporter()


@pytest.fixture
async def url(spans):
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(spans))
    settings = ServiceSettings.from_environment({"TOKENRY_LISTEN_ADDRESS": "127.0.0.1:0"})
    app = create_base_app(
        service="example",
        clock=FakeClock(),
        health=Health(),
        metrics=Metrics(service="example"),
        settings=settings,
        openapi={},
    )
    app[TRACES] = Traces(provider)

    async def told(_request):
        return web.json_response({"handed_on": trace_headers(), "line": _add_request_id(None, "info", {})})

    async def broken(_request):
        raise RuntimeError("broken")

    app.router.add_get("/told/{name}", told)
    app.router.add_get("/broken", broken)
    async with serve(app, ["127.0.0.1:0"]) as server:
        yield server.url


async def ask(url, headers=None):
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as response:
        return response.status, await response.json()


async def test_a_request_is_a_span_that_continues_the_callers_and_says_no_path(url, spans):
    status, told = await ask(f"{url}/told/secret-name?token=secret-value", {"traceparent": CALLER.header()})
    (span,) = spans.get_finished_spans()
    assert status == 200
    assert f"{span.context.trace_id:032x}" == CALLER.trace_id
    assert f"{span.parent.span_id:016x}" == CALLER.span_id
    assert span.name == "GET /told/{name}"
    assert dict(span.attributes)["http.response.status_code"] == 200
    assert "secret-name" not in span.to_json()
    assert "secret-value" not in span.to_json()
    own = f"{span.context.span_id:016x}"
    assert told["handed_on"] == {"traceparent": f"00-{CALLER.trace_id}-{own}-01"}
    assert (told["line"]["trace_id"], told["line"]["span_id"]) == (CALLER.trace_id, own)
    assert current_trace.get() is None


async def test_a_fault_is_one_in_the_span_too(url, spans):
    with capture_logs():
        status, _ = await ask(f"{url}/broken")
    (span,) = spans.get_finished_spans()
    assert status == 500
    assert span.status.is_ok is False
    assert "RuntimeError" not in span.to_json()


@pytest.mark.parametrize("parent", ["", "00-zz-zz-01", "x" * 5000, "00-" + "0" * 32 + "-" + "0" * 16 + "-01"])
async def test_a_parent_that_is_none_begins_a_trace(url, spans, parent):
    status, _ = await ask(f"{url}/told/x", {"traceparent": parent})
    (span,) = spans.get_finished_spans()
    assert (status, span.parent) == (200, None)


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_SDK_DISABLED": "true"},
    ],
)
def test_without_an_endpoint_there_are_no_traces(environ):
    assert traces_from(environ, service="issuer") is None
    assert trace_headers() == {}


def test_a_protocol_that_is_not_spoken_is_a_fault_of_the_settings():
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    with pytest.raises(ConfigurationError, match="http/protobuf"):
        traces_from(environ, service="issuer")


async def test_a_collector_that_is_away_does_not_hold_up_a_stop():
    class Provider:
        back = threading.Event()

        def get_tracer(self, _name):
            return None

        def shutdown(self):
            self.back.wait(60)

    running = Traces(Provider(), flush_seconds=0.01).running(None)
    await anext(running)
    async with asyncio.timeout(20):
        with pytest.raises(StopAsyncIteration):
            await anext(running)
    assert not Provider.back.is_set()
    Provider.back.set()
