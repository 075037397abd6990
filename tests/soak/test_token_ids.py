"""J7: ten million token ids, of several processes one after the other, and no two are the same. Half a minute."""

import subprocess
import sys
from array import array

import pytest

pytestmark = pytest.mark.soak

PROCESSES, EACH = 4, 2_500_000
# Each is a restart: a process of its own, with whatever state its random generator begins with.
MAKE_IDS = f"""
import secrets, sys
from tokenry.jose.encoding import b64url_decode
from tokenry_issuer.minting import JTI_BYTES, new_jti
write = sys.stdout.buffer.write
for _ in range({EACH}):
    write(b64url_decode(new_jti(secrets.token_bytes(JTI_BYTES)))[:8])
"""


def test_J07_ten_million_ids_never_repeat() -> None:
    # The first 64 bits are enough: if they never repeat, no id does. By chance they would once in 370,000 runs.
    parts = [array("Q") for _ in range(256)]
    for _ in range(PROCESSES):
        made = subprocess.run([sys.executable, "-c", MAKE_IDS], stdout=subprocess.PIPE, check=True).stdout
        ids = array("Q")
        ids.frombytes(made)
        assert len(ids) == EACH
        for each in ids:
            parts[each & 255].append(each)
    total = sum(map(len, parts))
    assert total == PROCESSES * EACH
    assert all(len(set(part)) == len(part) for part in parts)
