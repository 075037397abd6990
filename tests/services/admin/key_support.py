"""Keys in memory, with a clock moved by hand, for the tests of rotation."""

from tests.support.registry_store import MemoryRegistry
from tokenry.jose.sealing import EnvelopeKey
from tokenry.testing.clock import FakeClock
from tokenry_admin.key_actions import KeyActions
from tokenry_admin.key_custody import SealedCustody
from tokenry_admin.key_rotation import RotationPolicy
from tokenry_admin.key_store import KeyStore
from tokenry_registry.key_schedule import KeySchedule, announce_time
from tokenry_registry.signing_keys import KeyUse, read_stored_key

HOUR = 3600
DAY = 24 * HOUR
NOW = 1_800_000_000
ANNOUNCE = announce_time(jwks_max_age=300)
POLICY = RotationPolicy(period=90 * DAY, overlap=14 * DAY, lifetime=HOUR, announce=ANNOUNCE)


class Around:
    """A store of keys for tokens and lists, and what acts on it."""

    def __init__(self, token=None):
        self.store, self.clock, self.revoked = MemoryRegistry(), FakeClock(start=float(NOW)), set()
        self.envelope, self.list_envelope = EnvelopeKey.generate(), EnvelopeKey.generate()
        self.custodies = {
            KeyUse.TOKEN: token or SealedCustody(self.envelope),
            KeyUse.LIST: SealedCustody(self.list_envelope),
        }
        self.actions = self.another()

    def another(self):
        return KeyActions(
            KeyStore(self.store, self.custodies),
            dict.fromkeys((KeyUse.TOKEN, KeyUse.LIST), POLICY),
            clock=self.clock,
            revoked=lambda kids: self.revoked & kids,
        )

    def listed(self):
        found = {}
        for path, (body, version) in self.store.objects.items():
            kid = path.removeprefix("keys/").removesuffix(".json")
            found[kid] = read_stored_key(body, kid=kid), version
        return found

    def schedule(self):
        return KeySchedule(tuple(key.times for key, _ in self.listed().values() if key.use is KeyUse.TOKEN), ANNOUNCE)

    def signer(self):
        found = self.schedule().without(self.revoked).signing(self.clock.now(), lifetime=HOUR)
        return None if found is None else found.kid

    def faults(self):
        return self.schedule().without(self.revoked).faults(self.clock.now(), lifetime=HOUR)
