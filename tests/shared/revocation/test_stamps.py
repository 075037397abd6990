import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenry.errors import ProtocolError
from tokenry.revocation.stamps import ListStamp


def test_a_stamp_is_written_as_one_header():
    stamp = ListStamp(epoch=1, as_of=1_800_000_000.123, age=0.4)
    assert stamp.format() == "epoch=1, as_of=1800000000.123, age=0.400"
    assert ListStamp(as_of=5.0, age=0.0, seq=12).format() == "as_of=5.000, age=0.000, seq=12"


@given(
    st.floats(0, 4e9),
    st.floats(0, 1e6),
    st.none() | st.integers(0, 2**53 - 1),
    st.none() | st.integers(0, 2**53 - 1),
)
def test_what_was_written_is_read_and_never_younger(as_of, age, epoch, seq):
    stamp = ListStamp(as_of=as_of, age=age, epoch=epoch, seq=seq)
    found = ListStamp.parse(stamp.format(), with_epoch=False)
    assert (found.epoch, found.seq) == (epoch, seq)
    assert as_of - 0.002 <= found.as_of <= as_of + 1e-6
    assert age - 1e-6 <= found.age <= age + 0.002


@pytest.mark.parametrize(
    "text", ["epoch=1,as_of=5,age=0.1", " age=0.1,\tas_of=5,  epoch=1 ", "seq=3, epoch=1, as_of=5, age=0.1"]
)
def test_order_and_space_are_free(text):
    found = ListStamp.parse(text)
    assert (found.epoch, found.as_of, found.age) == (1, 5.0, 0.1)


@pytest.mark.parametrize(
    "text",
    [
        "", "epoch=1", "epoch=1, as_of=5", "epoch=1, age=0", "as_of=5, age=0",
        "epoch=1, as_of=5, age=0, age=0", "epoch=1, as_of=5, age=0, more=1", "epoch=1, as_of=5, age=0,",
        "epoch=1, as_of=5, age", "epoch=1, as_of=5, age=", "epoch=1, as_of=5, age=-1",
        "epoch=1, as_of=5, age=nan",
        "epoch=1, as_of=inf, age=0", "epoch=1, as_of=1e9, age=0", "epoch=1, as_of=5, age=+0",
        "epoch=1, as_of=05, age=0",
        "epoch=1, as_of=5., age=0", "epoch=1, as_of=.5, age=0", "epoch=1.0, as_of=5, age=0",
        "epoch=01, as_of=5, age=0",
        "epoch=-1, as_of=5, age=0", "epoch=99999999999999999, as_of=5, age=0",
        "epoch=1, as_of=999999999999, age=0",
        "epoch=1 as_of=5 age=0", "epoch=1; as_of=5; age=0", "epoch = 1, as_of=5, age=0",
        "epoch=\u0661, as_of=5, age=0",
        "epoch=1, as_of=5, age=0, seq=x", "epoch=1, as_of=5, age=0" + " " * 300, "EPOCH=1, as_of=5, age=0",
        "epoch=1, as_of=5.1234567, age=0", "epoch=1, as_of=5\n, age=0",
    ],
)  # fmt: skip
def test_anything_else_is_refused(text):
    with pytest.raises(ProtocolError):
        ListStamp.parse(text)


def test_an_answer_about_a_token_may_leave_the_epoch_out():
    assert ListStamp.parse("as_of=5, age=0", with_epoch=False).epoch is None


@pytest.mark.parametrize(
    "members",
    [
        {"as_of": -1.0, "age": 0.0}, {"as_of": 1.0, "age": -0.1}, {"as_of": math.nan, "age": 0.0},
        {"as_of": 1.0, "age": math.inf}, {"as_of": 1e11, "age": 0.0}, {"as_of": 1.0, "age": 0.0, "epoch": -1},
        {"as_of": 1.0, "age": 0.0, "seq": 10**16},
    ],
)  # fmt: skip
def test_a_stamp_that_cannot_be_written_cannot_be_made(members):
    with pytest.raises(ProtocolError):
        ListStamp(**members)
