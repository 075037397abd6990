import io
import json
import logging
import re
import threading

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.access_tokens import token
from tokenry.serving.access_log import (
    _SECRETS,
    REDACTED,
    LineWriter,
    RepeatedRecord,
    _is_suspicious,
    configure_logging,
    record,
    redact_text,
    redact_value,
)
from tokenry.serving.keys import current_request_id
from tokenry.serving.settings import ServiceSettings

TOKEN = token()


@pytest.fixture
def lines():
    """Configure logging; the function returns the lines written so far."""
    stream = io.StringIO()
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    writer = configure_logging(ServiceSettings(environment="test"), service="svc", stream=stream)

    def read():
        writer.close()
        return [json.loads(line) for line in stream.getvalue().splitlines()]

    yield read
    root.handlers[:], root.level = before
    structlog.reset_defaults()


def test_a_line_is_one_json_object_with_what_every_line_has(lines):
    reset = current_request_id.set("r-1")
    structlog.get_logger("x").info("something", reason="why")
    current_request_id.reset(reset)
    (line,) = lines()
    assert line.pop("ts").endswith("Z")
    assert line == {
        "event": "something", "level": "info", "service": "svc", "environment": "test", "request_id": "r-1",
        "reason": "why",
    }  # fmt: skip


def test_the_standard_librarys_logging_goes_the_same_way(lines):
    logging.getLogger("tokenry").warning("keys of %s", "issuer")
    (line,) = lines()
    assert (line["event"], line["level"], line["service"], line["logger"]) == (
        "keys of issuer", "warning", "svc", "tokenry",
    )  # fmt: skip


def test_below_the_level_nothing_is_written(lines):
    structlog.get_logger("x").debug("no")
    logging.getLogger("aiohttp").info("no")
    assert lines() == []


@pytest.mark.parametrize(
    "event",
    [
        {"event": TOKEN},
        {"event": "x", "header": f"Bearer {TOKEN}"},
        {"event": "x", "nested": {"deep": [{"a": (TOKEN,)}]}},
        {"event": "x", "raw": TOKEN.encode()},
        {"event": "x", "error": ValueError(f"bad {TOKEN}")},
        {"event": f"GET /?access_token={TOKEN}&x=1"},
    ],
)
def test_no_token_reaches_a_line(lines, event):
    structlog.get_logger("x").info(**event)
    (line,) = lines()
    text = json.dumps(line)
    assert REDACTED in text
    assert not any(part in text for part in TOKEN.split("."))


def test_no_token_reaches_a_line_through_a_traceback(lines):
    try:
        raise ValueError(f"cannot read {TOKEN}")  # noqa: TRY301 -- it must have a traceback
    except ValueError as error:
        structlog.get_logger("x").error("failed", exc_info=error)
        logging.getLogger("other").exception("failed %s", TOKEN)
    ours, theirs = lines()
    assert "Traceback" in ours["exception"]
    for line in (ours, theirs):
        assert TOKEN.split(".")[1] not in json.dumps(line)


@pytest.mark.parametrize(
    "text",
    ["Authorization: Basic dXNlcjpwdw==", "authorization='Bearer abc'", "basic dXNlcjpwdw==",
     "Bearer opaque-token", "client_secret=hunter2&x=1", "password=hunter2", "DPoP abc.def"],
)  # fmt: skip
def test_credentials_of_every_kind_are_replaced(text):
    cleaned = redact_text(text)
    assert REDACTED in cleaned
    assert not any(word in cleaned for word in ("dXNlcjpwdw", "abc", "opaque", "hunter2"))


@pytest.mark.parametrize("text", ["listening on 127.0.0.1:80", "eyesight", "kid abc", "token refused", "12 keys"])
def test_ordinary_text_stays(text):
    assert redact_text(text) == text


def test_what_lies_too_deep_is_replaced_whole():
    value: object = TOKEN
    for _ in range(50):
        value = [value]
    assert TOKEN not in str(redact_value(value))


def test_a_fake_line_in_a_value_stays_within_its_line(lines):
    structlog.get_logger("x").info("login", name='a\r\n{"event": "admin logged in"}\udcff')
    assert len(lines()) == 1


class Stuck(io.StringIO):
    """A pipe whose reader has stopped."""

    def __init__(self):
        super().__init__()
        self.go = threading.Event()

    def write(self, text):
        self.go.wait(10)
        return super().write(text)


def test_a_reader_that_has_stopped_costs_lines_and_not_time():
    stream = Stuck()
    writer = LineWriter(stream, max_lines=5)
    for number in range(100):
        writer.write(str(number))
    assert writer.dropped >= 90
    stream.go.set()
    writer.close()
    assert stream.getvalue().startswith("0\n1\n")


def test_a_closed_pipe_is_survived():
    stream = io.StringIO()
    stream.close()
    writer = LineWriter(stream)
    writer.write("x")
    writer.close()
    assert writer.dropped


PIECES = [
    *("eyJhbGciOi", "eyJ", ".", "x", "bearer", "Basic", "dpop", "authorization", "token", "password", "secret"),
    *("access_token", " ", "\t", "\n", "\x1f", "\x85", "\u2003", ":", "=", "&", "é", "\udc80", "/oauth2/token"),
]


@settings(max_examples=300, derandomize=True)
@given(st.lists(st.sampled_from(PIECES), max_size=8).map("".join))
def test_what_is_passed_over_quickly_is_what_the_expression_leaves_alone(text):
    assert redact_text(text) == _SECRETS.sub(REDACTED, text)


# --- the short way of lines that come with every request ---------------------------------------------------

SUSPECTS = [
    TOKEN,
    f"scope {TOKEN}",
    "Bearer abc",
    "bearer\tabc",
    "BASIC eA==",
    "dpop\u00a0x",
    "Authorization: x",
    "authorization=x",
    "token=abc",
    "client_secret=abc",
    "a&Password=abc",
    "client_assertion=abc",
    "\udc80",
    "josé",
]


@pytest.mark.parametrize("text", [*SUSPECTS, "plain", "a b", "x=y", "https://issuer.example.org", None, 7, ["a", "b"]])
def test_the_short_way_writes_what_the_long_way_writes(lines, text):
    members = {"client_id": "orders", "what": text, "several": [text], "nothing": None, "number": 3.5}
    reset = current_request_id.set("r-1")
    record("token_issued", members)
    structlog.get_logger("x").info("token_issued", **members)
    current_request_id.reset(reset)
    short, long = lines()
    assert {**short, "ts": ""} == {**long, "ts": ""}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", short["ts"])


@pytest.mark.parametrize("text", [*SUSPECTS, "plain", "a b", 'a"b\\', "x=y", None, 7, 7.25, float("nan"), True, ["a"]])
@pytest.mark.parametrize("where", ["steady", "changing"])
def test_a_repeated_record_is_what_a_single_one_is(lines, text, where):
    members = {"client_id": "orders", "a": "x"}, {"jti": "j", "number": 3, "b": "y"}
    members[where == "changing"]["what"] = text
    repeated = RepeatedRecord("token_issued", members[0])
    reset = current_request_id.set('r-"1')
    for _ in range(2):
        repeated.write(members[1])
    record("token_issued", members[0] | members[1])
    current_request_id.reset(reset)
    first, second, single = (str({**line, "ts": ""}) for line in map(sorted_by_name, lines()))
    assert first == second == single  # as texts: a NaN is not equal to itself


def test_a_repeated_record_goes_where_logs_go_now():
    stream, other = io.StringIO(), io.StringIO()
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    repeated = RepeatedRecord("request", {"route": "/x"})
    for service, to in (("one", stream), ("two", other)):
        writer = configure_logging(ServiceSettings(environment="test"), service=service, stream=to)
        repeated.write({"status": 200})
        writer.close()
    with structlog.testing.capture_logs() as logs:
        repeated.write({"status": 201})
    root.handlers[:], root.level = before
    structlog.reset_defaults()
    assert [json.loads(each.getvalue())["service"] for each in (stream, other)] == ["one", "two"]
    assert logs == [{"event": "request", "log_level": "info", "route": "/x", "status": 201}]


def sorted_by_name(line):
    return dict(sorted(line.items()))


@given(st.text() | st.from_regex(_SECRETS) | st.from_regex(_SECRETS).map(str.upper))
def test_whatever_would_be_redacted_goes_the_long_way(text):
    line = json.dumps({"x": text}, separators=(",", ":"))
    assert redact_text(text) == text or _is_suspicious(line)


def test_the_short_way_obeys_the_level_and_whoever_captures_logs():
    stream = io.StringIO()
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    writer = configure_logging(ServiceSettings(environment="test", log_level="warning"), service="svc", stream=stream)
    record("token_issued", {})
    writer.close()
    assert stream.getvalue() == ""
    writer = configure_logging(ServiceSettings(environment="test"), service="svc", stream=stream)
    with structlog.testing.capture_logs() as logs:
        record("token_issued", {"realm": "/x"})
    record("token_issued", {"realm": "/y"})
    writer.close()
    root.handlers[:], root.level = before
    structlog.reset_defaults()
    assert [(each["event"], each["realm"]) for each in logs] == [("token_issued", "/x")]
    assert json.loads(stream.getvalue())["realm"] == "/y"
