"""As much of PromQL as is needed to find the names of metrics in an expression."""

import re
from collections.abc import Iterator

_KEYWORDS = frozenset({"and", "or", "unless", "offset", "bool", "atan2", "inf", "nan"})
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"|' + r"'(?:[^'\\]|\\.)*'")
_SELECTION = re.compile(r"\{[^{}]*\}")
_RANGE = re.compile(r"\[[^\]]*\]")
_LABELS = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^()]*\)")
_OFFSET = re.compile(r"\boffset\s+-?(?:\d+[a-z]+)+")
_NAME = re.compile(r"[A-Za-z_:][A-Za-z0-9_:]*(?!\s*\(|[A-Za-z0-9_:])")


def metric_names(expression: str) -> set[str]:
    """Return the names of the metrics that *expression* asks for."""
    bare = expression
    for pattern in (_STRING, _SELECTION, _RANGE, _LABELS, _OFFSET):
        bare = pattern.sub(" ", bare)
    return {name for name in _names(bare) if name.lower() not in _KEYWORDS}


def _names(text: str) -> Iterator[str]:
    for match in _NAME.finditer(text):
        # 1e9 and 5m begin with a digit: what follows it is no name.
        if match.start() == 0 or not text[match.start() - 1].isdigit():
            yield match[0]
