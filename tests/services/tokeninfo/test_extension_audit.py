"""That somebody broke the glass is a record of a chain, which `tokenry audit verify` reads out of the log."""

import io
import logging

import structlog

from tokenry.serving.access_log import configure_logging
from tokenry.serving.audit_chain import record_of, verify
from tokenry.serving.settings import ServiceSettings
from tokenry.sources.events import EventKind, SourceEvent
from tokenry.testing.clock import FakeClock
from tokenry_tokeninfo.__main__ import extension_audit


def test_a_broken_glass_is_a_record_of_a_chain_and_nothing_else_is_one():
    out, root = io.StringIO(), logging.getLogger()
    before = (root.handlers[:], root.level)
    writer = configure_logging(ServiceSettings(environment="test"), service="tokeninfo", stream=out)
    try:
        note = extension_audit("tokeninfo-1", clock=FakeClock(start=1_800_000_000.0))
        note(SourceEvent(source="extension", kind=EventKind.ALARM, reason="extended", detail="by jdoe until 18:00"))
        note(SourceEvent(source="extension", kind=next(kind for kind in EventKind if kind is not EventKind.ALARM)))
        note(SourceEvent(source="extension", kind=EventKind.ALARM, reason="extended", detail="by jdoe until 19:00"))
    finally:
        writer.close()
        root.handlers[:], _ = before
        root.setLevel(before[1])
        structlog.reset_defaults()
    records = [record for line in out.getvalue().splitlines() if (record := record_of(line)) is not None]
    (chain,) = verify(records)
    assert (chain.first, chain.last) == (1, 2)
    assert chain.instance.startswith("tokeninfo-1.")
    assert [record["detail"] for record in records] == ["by jdoe until 18:00", "by jdoe until 19:00"]
