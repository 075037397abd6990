"""
Traces over OTLP (HTTP, protobuf), configured as OpenTelemetry's own environment variables say.

On where `OTEL_EXPORTER_OTLP_ENDPOINT` or `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` is set, and `OTEL_SDK_DISABLED` is not
`true`. Then every request is a span that continues the caller's (`traceparent`), log lines carry `trace_id` and
`span_id`, and calls to another service hand the trace on. Where it is off nothing is imported, and no request pays
anything. Where it is on nothing is answered at once (`tokenry.serving.quick`): each request is to be seen.

A span says the method, the route's template, the status and the request's id: never a path, a header or a body.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from aiohttp import web

from tokenry.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
TRACE_PARENT: Final = "traceparent"
_FAULT: Final = 500
FLUSH_SECONDS: Final = 3.0  # at the end of the process; what is not sent by then is lost


class TraceIds(NamedTuple):
    """The span that is under way, as log lines and other services are told of it (W3C Trace Context section 3.2)."""

    trace_id: str
    span_id: str
    flags: int

    def header(self) -> str:
        """Return the value of `traceparent`."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags:02x}"


current_trace: ContextVar[TraceIds | None] = ContextVar("current_trace", default=None)


def trace_headers() -> dict[str, str]:
    """Return what a call to another service has to carry, so that its span continues ours."""
    ids = current_trace.get()
    return {} if ids is None else {TRACE_PARENT: ids.header()}


class Traces:
    """Makes spans of requests and sends them away, in a thread of its own."""

    def __init__(self, provider: Any, *, flush_seconds: float = FLUSH_SECONDS) -> None:  # noqa: ANN401 -- OpenTelemetry's
        """Use *provider*, a `TracerProvider` of OpenTelemetry's SDK; at the end send for at most *flush_seconds*."""
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._flush_seconds = flush_seconds
        self._tracer = provider.get_tracer("tokenry")
        self._propagator = TraceContextTextMapPropagator()
        self._kind = SpanKind.SERVER

    @contextmanager
    def request(self, headers: Mapping[str, str], *, method: str, request_id: str) -> Iterator[RequestSpan]:
        """Make a span of one request with *headers*; ask it for its name before it ends."""
        parent = self._propagator.extract({name.lower(): value for name, value in _carried(headers)})
        attributes = {"http.request.method": method, "tokenry.request_id": request_id}
        span = self._tracer.start_span(method, context=parent, kind=self._kind, attributes=attributes)
        context = span.get_span_context()
        ids = TraceIds(f"{context.trace_id:032x}", f"{context.span_id:016x}", int(context.trace_flags))
        reset = current_trace.set(ids)
        try:
            yield RequestSpan(span)
        finally:
            current_trace.reset(reset)
            span.end()

    async def running(self, _app: web.Application) -> AsyncIterator[None]:
        """Send what is left when the application ends (`app.cleanup_ctx`)."""
        yield
        # Not in a pool, whose threads are waited for: a collector that is away must not hold up a stop.
        sending = threading.Thread(target=self._provider.shutdown, name="traces-end", daemon=True)
        sending.start()
        await asyncio.to_thread(sending.join, self._flush_seconds)


class RequestSpan:
    """The span of one request."""

    __slots__ = ("_span",)

    def __init__(self, span: Any) -> None:  # noqa: ANN401 -- OpenTelemetry's
        """Wrap *span*."""
        self._span = span

    def answered(self, *, method: str, route: str, status: int) -> None:
        """Note the outcome: *route* is a template, never a path as received."""
        from opentelemetry.trace import StatusCode

        self._span.update_name(f"{method} {route}")
        self._span.set_attribute("http.route", route)
        self._span.set_attribute("http.response.status_code", status)
        if status >= _FAULT:
            self._span.set_status(StatusCode.ERROR)


TRACES = web.AppKey("traces", Traces)


def traces_from(environ: Mapping[str, str], *, service: str) -> Traces | None:
    """
    Return what makes spans of *service*, or None where tracing is off.

    Raises:
        ConfigurationError: It is on, and cannot be: the packages are missing, or a setting is wrong.
    """
    wanted = [name for name in ENDPOINTS if environ.get(name)]
    if not wanted or environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    protocols = {
        environ.get(name) or "http/protobuf"
        for name in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
    }
    if protocols != {"http/protobuf"}:
        raise ConfigurationError(["OTEL_EXPORTER_OTLP_PROTOCOL: only http/protobuf is spoken here; leave it out"])
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise ConfigurationError([f"{wanted[0]}: install tokenry[tracing], or leave the setting out"]) from None
    name = environ.get("OTEL_SERVICE_NAME") or f"tokenry-{service}"
    # Its resource comes from the environment, too; the name is ours unless that says another.
    provider = TracerProvider(resource=Resource.create({"service.name": name}), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Traces(provider)


def _carried(headers: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name in (TRACE_PARENT, "tracestate"):
        value = headers.get(name)
        if value is not None:
            yield name, value
