"""What the base application keeps (`app[HEALTH]`) and what it puts into a request (`request[REQUEST_ID]`)."""

from __future__ import annotations

from contextvars import ContextVar

from aiohttp import web

from tokenry.clock import Clock
from tokenry.serving.health import Health
from tokenry.serving.metrics import Metrics
from tokenry.serving.settings import ServiceSettings

SERVICE = web.AppKey("service", str)
CLOCK = web.AppKey("clock", Clock)
HEALTH = web.AppKey("health", Health)
METRICS = web.AppKey("metrics", Metrics)
SETTINGS = web.AppKey("settings", ServiceSettings)

REQUEST_ID = web.RequestKey("request_id", str)
CLIENT_ADDRESS = web.RequestKey("client_address", str)

# For log lines that are written far away from the request.
current_request_id: ContextVar[str | None] = ContextVar("current_request_id", default=None)
