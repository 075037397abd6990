"""What only the event loop counts with: the same families as the client library's, without its locks."""

import pytest

from tokenry.serving.metrics import Metrics


def test_a_counter_of_the_loop_reads_as_any_other():
    metrics = Metrics(service="test")
    counter = metrics.loop_counter("tokenry_things", "Things by kind.", labels=("kind",))
    good, bad = counter.labels("good"), counter.labels("bad")
    for _ in range(3):
        good.inc()
    assert counter.labels("good") is good
    assert bad.value == 0
    text = metrics.render().decode()
    assert "# TYPE tokenry_things_total counter" in text
    assert 'tokenry_things_total{kind="good"} 3.0' in text
    assert 'tokenry_things_total{kind="bad"} 0.0' in text
    with pytest.raises(ValueError, match="tokenry_things has the labels kind"):
        counter.labels("good", "and more")
