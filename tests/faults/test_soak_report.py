"""The plots of a soak."""

import re

from tests.support.soak_report import Panel, svg


def drawn(*points: tuple[float, float]) -> str:
    """Return where the line through *points* begins anew (M) and goes on (L)."""
    panel = Panel("answers")
    for second, value in points:
        panel.add("2xx", second, value)
    line = re.findall(r'<path d="([^"]*)"', svg("a run", [panel], [], seconds=3600.0))[-1]
    return "".join(re.findall("[ML]", line))


def test_a_line_through_wide_bins_is_one_line():
    assert drawn(*((12.0 * number, 1.0) for number in range(4))) == "MLLL"


def test_where_a_process_was_away_the_line_breaks():
    assert drawn((0, 1), (1, 1), (2, 1), (30, 1), (31, 1)) == "MLLML"
    assert drawn((0, 1), (12, 1), (24, 1), (60, 1), (72, 1)) == "MLLML"
