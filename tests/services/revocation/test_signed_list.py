"""The signed list: its keys, its publisher, and several publishers for one place."""

import asyncio
import json

import pytest

from tokenry.errors import ConfigurationError
from tokenry.jose.encoding import parse_json_object
from tokenry.jose.jwk import PrivateKey
from tokenry.jose.jws import split
from tokenry.jose.sealing import EnvelopeKey
from tokenry.revocation.signed import digest_of, read_signed_list
from tokenry_registry import bootstrap
from tokenry_revocation.adapters.rules_directory import RulesDirectory
from tokenry_revocation.adapters.shelf_directory import DirectoryShelf
from tokenry_revocation.app import PUBLISHER, SERVICE_PARTS, Publishing
from tokenry_revocation.list_keys import KEYS_FOLDER, ListKeys, read_list_key, signing_key
from tokenry_revocation.publisher import Overtaken, Publisher, ShelfUnavailable, Turn
from tokenry_revocation.signed_list import Stream

ISSUER = "https://issuer.example.org"
NOW = 1_800_000_000
DAY = 86_400


class FaultyShelf(DirectoryShelf):
    """A folder that can go away, before a write or after it."""

    fault = None
    loses_answers = False

    def version(self):
        self._check()
        return super().version()

    def read(self):
        self._check()
        return super().read()

    def write(self, body, *, replaces):
        self._check()
        version = super().write(body, replaces=replaces)
        if self.loses_answers:
            raise ShelfUnavailable("no answer")
        return version

    def _check(self):
        if self.fault:
            raise ShelfUnavailable(self.fault)


class Place:
    """A folder with list keys and the published list."""

    def __init__(self, root):
        self.root = root
        self.envelope = EnvelopeKey.generate()
        self.kid = self.add_key()

    def add_key(self, *, use="list", at=NOW - DAY, envelope=None, retire_at=NOW + DAY):
        return bootstrap.create_signing_key(
            self.root, envelope or self.envelope, publish_at=at, activate_at=at, retire_at=retire_at, use=use
        )

    @property
    def keys(self):
        return ListKeys(RulesDirectory(self.root, folder=KEYS_FOLDER), envelope=self.envelope)

    @property
    def file(self):
        return self.root / "published" / "revocation-list.jwt"

    def publishing(self, *, keys=None):
        return Publishing(shelf=FaultyShelf(self.root / "published"), keys=keys or self.keys)

    def read(self):
        keys = self.keys
        keys.refresh()
        text = self.file.read_text()
        return text, read_signed_list(text, issuer=ISSUER, find=keys.find)


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


# --- keys -----------------------------------------------------------------------------------------------------------


def document(place, kid):
    return (place.root / "keys" / f"{kid}.json").read_bytes()


def test_a_list_key_opens_with_the_services_envelope_key(place):
    key = read_list_key(document(place, place.kid), kid=place.kid, envelope=place.envelope)
    assert key.private.kid == place.kid


def test_a_key_of_another_use_is_never_opened(place):
    kid = place.add_key(use="token", envelope=EnvelopeKey.generate())
    assert read_list_key(document(place, kid), kid=kid, envelope=place.envelope) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.update(kid="another"),
        lambda m: m.update(version=2),
        lambda m: m.pop("sealed"),
        lambda m: m.update(sealed="x"),
        lambda m: m["sealed"].update(method="kms"),
        lambda m: m["sealed"].update(ciphertext="AAAA"),
        lambda m: m.update(publish_at="1"),
        lambda m: m.update(activate_at=0),
        lambda m: m.update(surprise=1),
    ],
)
def test_a_list_key_with_anything_amiss_is_refused(place, change):
    members = json.loads(document(place, place.kid))
    change(members)
    (place.root / "keys" / f"{place.kid}.json").write_text(json.dumps(members))
    keys = place.keys
    keys.refresh()
    assert keys.keys() == ()


def test_a_list_key_under_another_envelope_key_is_refused(place):
    keys = ListKeys(RulesDirectory(place.root, folder=KEYS_FOLDER), envelope=EnvelopeKey.generate())
    keys.refresh()
    assert keys.keys() == ()


def test_the_newest_key_that_is_due_signs(place):
    newer = place.add_key(at=NOW - 10)
    place.add_key(at=NOW + 10)
    keys = place.keys
    keys.refresh()
    assert signing_key(keys.keys(), now=NOW).kid == newer
    assert signing_key(keys.keys(), now=NOW, revoked={newer}).kid == place.kid
    assert signing_key(keys.keys(), now=NOW + 2 * DAY) is None


def test_keys_stay_while_their_place_is_away_and_go_when_they_are_removed(place):
    keys = place.keys
    keys.refresh()
    path = place.root / "keys" / f"{place.kid}.json"
    path.unlink()
    keys.refresh()
    assert keys.keys() == ()


# --- publishing -----------------------------------------------------------------------------------------------------


def publisher_of(replica, place, *, name="A", interval=30.0, **more):
    """A publisher over what *replica* publishes, whose turns the test takes."""
    parts = replica.app[SERVICE_PARTS]
    return Publisher(
        feed=parts.feed,
        shelf=FaultyShelf(place.root / "published"),
        keys=place.keys,
        stream=Stream(issuer=ISSUER, name=name * 22, interval=interval),
        max_token_lifetime=parts.terms.max_token_lifetime,
        clock=parts.clock,
        clock_is_off=lambda: parts.clock_is_off,
        metrics=parts.metrics,
        **more,
    )


@pytest.fixture
def publisher(service, place):
    return publisher_of(service, place)


async def until_published(replica):
    while replica.app[PUBLISHER].current is None:  # noqa: ASYNC110 -- its own loop publishes, in a thread
        await asyncio.sleep(0.01)


async def test_a_list_is_published_with_what_is_in_force(world, service, place, publisher):
    posted = await service.post("TOKEN", {"jti": "stolen"})
    world.clock.advance(31)
    await service.feed.read()
    assert await publisher.turn() is Turn.PUBLISHED
    text, issue = place.read()
    assert split(text).header["typ"] == "revocation-list+jwt"
    assert issue.content.entries[0].id == posted.json["id"]
    assert issue.as_of == pytest.approx(service.feed.as_of, abs=0.002)
    assert issue.next_update == issue.issued_at + 30
    assert issue.content.max_token_lifetime == 3600
    snapshot = (await service.get("/revocations/snapshot")).list
    assert issue.content.entries == snapshot.entries
    assert issue.content.salts == snapshot.salts
    assert issue.content.epoch == snapshot.epoch


async def test_it_is_published_again_when_nothing_changed_and_each_names_the_one_before(world, place, publisher):
    texts, issues = [], []
    for _ in range(3):
        assert await publisher.turn() is Turn.PUBLISHED
        text, issue = place.read()
        texts.append(text)
        issues.append(issue)
        world.clock.advance(30)
    assert [issue.seq for issue in issues] == [1, 2, 3]
    assert len({issue.stream for issue in issues}) == 1
    assert [issue.previous for issue in issues] == [None, *(digest_of(text) for text in texts[:2])]


async def test_F22_two_replicas_publish_in_turn_and_never_fork(world, service, place):
    one, two = publisher_of(service, place), publisher_of(service, place, name="B")
    assert await one.turn() is Turn.PUBLISHED
    assert await two.turn() is Turn.STANDING_BY
    for _ in range(5):
        world.clock.advance(30)
        assert await one.turn() is Turn.PUBLISHED
        assert await two.turn() is Turn.STANDING_BY
    first = place.read()[1]
    # the first one dies; the second takes over after a period and a quarter, and goes on counting
    world.clock.advance(30)
    assert await two.turn() is Turn.STANDING_BY
    world.clock.advance(8)
    assert await two.turn() is Turn.PUBLISHED
    second = place.read()[1]
    assert (first.stream, second.stream) == ("A" * 22, "B" * 22)
    assert second.seq == first.seq + 1
    # and the first one, which only slept, is overtaken and stands by
    assert await one.turn() is Turn.OVERTAKEN
    assert await one.turn() is Turn.STANDING_BY
    assert one.current.body == place.file.read_bytes()


@pytest.mark.parametrize("interval", [1.0, 1.5, 2.0, 5.0])
@pytest.mark.parametrize("began", [0.0, 0.5, 0.99])
async def test_F22_with_an_interval_of_seconds_who_is_on_time_is_not_overtaken(world, service, place, interval, began):
    one, two = (publisher_of(service, place, name=name, interval=interval) for name in "AB")
    world.clock.advance(began)
    for _ in range(4):
        assert await one.turn() is Turn.PUBLISHED
        for _ in range(6):
            assert await two.turn() is Turn.STANDING_BY
            world.clock.advance(interval / 6)
        # the next list is due now, and its writer a moment late; whoever starts just then stands by as well
        assert await two.turn() is Turn.STANDING_BY
        assert await publisher_of(service, place, name="C", interval=interval).turn() is Turn.STANDING_BY
    world.clock.advance(0.3 * interval)
    assert await two.turn() is Turn.PUBLISHED


async def test_F22_whoever_starts_when_the_list_is_overdue_takes_over_at_once(world, service, place):
    assert await publisher_of(service, place, interval=2.0).turn() is Turn.PUBLISHED
    world.clock.advance(3.5)
    assert await publisher_of(service, place, name="B", interval=2.0).turn() is Turn.PUBLISHED


async def test_F23_of_two_replicas_that_begin_at_once_one_publishes(service, place):
    one, two = publisher_of(service, place), publisher_of(service, place, name="B")
    turns = await asyncio.gather(one.turn(), two.turn())
    assert sorted(turns) in ([Turn.OVERTAKEN, Turn.PUBLISHED], [Turn.PUBLISHED, Turn.STANDING_BY])
    place.read()


async def test_F23_a_write_whose_answer_is_lost_never_makes_two_lists_of_one_number(world, place, publisher):
    assert await publisher.turn() is Turn.PUBLISHED
    publisher._shelf.loses_answers = True
    assert await publisher.turn() is Turn.FAILED
    written = place.read()[1]
    publisher._shelf.loses_answers = False
    world.clock.advance(30)
    assert await publisher.turn() is Turn.PUBLISHED  # it knows its own stream
    after = place.read()[1]
    assert (after.stream, after.seq) == (written.stream, written.seq + 1)


async def test_a_number_is_not_used_again_when_its_list_was_not_written(world, place, publisher):
    assert await publisher.turn() is Turn.PUBLISHED
    publisher._shelf.write = lambda body, *, replaces: (_ for _ in ()).throw(ShelfUnavailable("unplugged"))
    assert await publisher.turn() is Turn.FAILED
    del publisher._shelf.write
    world.clock.advance(60)
    assert await publisher.turn() is Turn.PUBLISHED
    assert place.read()[1].seq == 3


async def test_while_the_place_is_away_it_is_tried_again(world, publisher):
    publisher._shelf.fault = "unplugged"
    assert await publisher.turn() is Turn.FAILED
    publisher._shelf.fault = None
    assert await publisher.turn() is Turn.PUBLISHED


async def test_what_is_no_list_of_ours_is_replaced(place, publisher):
    place.file.parent.mkdir()
    place.file.write_text("not a list")
    assert await publisher.turn() is Turn.PUBLISHED
    place.read()


async def test_F47_nothing_is_signed_while_our_clock_is_off(world, publisher):
    world.store.clock_offset = 1.5
    assert await publisher.turn() is Turn.CLOCK_OFF
    world.store.clock_offset = 0.2
    assert await publisher.turn() is Turn.PUBLISHED


async def test_nothing_is_published_before_the_store_was_read(world, place):
    world.store.down = True
    async with world.replica(ready=False) as replica:
        assert await publisher_of(replica, place).turn() is Turn.NO_LIST


async def test_without_a_key_nothing_is_published(place, publisher):
    (place.root / "keys" / f"{place.kid}.json").unlink()
    assert await publisher.turn() is Turn.NO_KEY


async def test_a_revoked_list_key_signs_no_more(service, world, place, publisher):
    other = place.add_key(at=NOW - 2 * DAY)
    assert await publisher.turn() is Turn.PUBLISHED
    assert split(place.read()[0]).header["kid"] == place.kid
    assert (await service.post("KEY", {"kid": place.kid})).status == 201
    world.clock.advance(30)
    await publisher.turn()
    assert split(place.read()[0]).header["kid"] == other


async def test_an_old_list_is_still_signed_with_its_true_age_while_the_store_is_away(service, world, place, publisher):
    as_of = service.feed.as_of
    world.store.down = True
    world.clock.advance(300)
    assert await publisher.turn() is Turn.PUBLISHED
    issue = place.read()[1]
    assert issue.as_of == pytest.approx(as_of, abs=0.002)
    assert issue.issued_at == int(world.clock.now())


async def test_a_long_list_is_published_in_columns(service, place):
    publisher = publisher_of(service, place, max_written=1)
    for number in range(3):
        await service.post("TOKEN", {"jti": f"stolen-{number}"})
    assert await publisher.turn() is Turn.PUBLISHED
    content = place.read()[1].content
    assert (len(content.block), content.entries) == (3, ())


# --- GET /revocations/signed ----------------------------------------------------------------------------------------


async def test_the_list_is_served_as_published(world, place):
    async with world.replica(publishing=place.publishing()) as replica:
        await until_published(replica)
        answer = await replica.get("/revocations/signed")
        assert answer.status == 200
        assert answer.body == place.file.read_bytes()
        assert answer.headers["Content-Type"] == "application/revocation-list+jwt"
        again = await replica.get("/revocations/signed", headers={"If-None-Match": answer.headers["ETag"]})
        assert (again.status, again.body) == (304, b"")


async def test_where_none_is_published_it_is_not_found(service):
    answer = await service.get("/revocations/signed")
    assert answer.status == 404


async def test_reading_it_needs_the_scope_where_the_list_does(world, place):
    async with world.replica(publishing=place.publishing(), TOKENRY_LIST_READ_SCOPE="list.read") as replica:
        await until_published(replica)
        assert (await replica.get("/revocations/signed")).status == 401
        good = await replica.get("/revocations/signed", token=world.caller("list.read"))
        assert good.status == 200


# --- settings, adapters ---------------------------------------------------------------------------------------------


def test_settings_that_cannot_publish_are_refused_at_once(world):
    with pytest.raises(ConfigurationError) as caught:
        world.settings(TOKENRY_LIST_PUBLISH_URL="ftp://example.org/")
    text = str(caught.value)
    assert "TOKENRY_LIST_PUBLISH_URL" in text
    assert "TOKENRY_LIST_KEYS_URL" in text
    assert "TOKENRY_LIST_ENVELOPE_KEY" in text


def test_an_envelope_key_that_is_none_is_a_fault_of_the_configuration(world, tmp_path):
    from tokenry_revocation.__main__ import publishing

    settings = world.settings(
        TOKENRY_LIST_PUBLISH_URL=tmp_path.as_uri() + "/",
        TOKENRY_LIST_KEYS_URL=tmp_path.as_uri() + "/",
        TOKENRY_LIST_ENVELOPE_KEY="short",
    )
    with pytest.raises(ConfigurationError, match="TOKENRY_LIST_ENVELOPE_KEY"):
        publishing(settings)


def shelf_of(kind, tmp_path, request):
    if kind == "folder":
        return DirectoryShelf(tmp_path / "deep" / "folder")
    from tokenry_revocation.adapters.shelf_s3 import S3Shelf

    client = request.getfixturevalue("s3_client")
    bucket = f"lists-{abs(hash(tmp_path)):x}"[:40]
    client.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    return S3Shelf(bucket, "lists/", client=client)


@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_a_shelf_writes_only_over_the_version_that_was_seen(kind, tmp_path, request):
    shelf = shelf_of(kind, tmp_path, request)
    assert shelf.version() is None
    assert shelf.read() is None
    first = shelf.write(b"one", replaces=None)
    assert shelf.version() == first
    with pytest.raises(Overtaken):
        shelf.write(b"two", replaces=None)
    second = shelf.write(b"two", replaces=first)
    with pytest.raises(Overtaken):
        shelf.write(b"three", replaces=first)
    with pytest.raises(Overtaken):
        shelf.write(b"three", replaces='"nothing-like-it"')
    placed = shelf.read()
    assert (placed.body, placed.version) == (b"two", second)


def test_a_folder_that_cannot_be_used_is_unavailable(tmp_path):
    (tmp_path / "file").write_text("in the way")
    shelf = DirectoryShelf(tmp_path / "file")
    for call in (shelf.version, shelf.read, lambda: shelf.write(b"x", replaces=None)):
        with pytest.raises(ShelfUnavailable):
            call()


def test_the_payload_of_a_published_list_says_what_its_readers_expect(place):
    key = PrivateKey.generate()
    from tokenry.revocation.documents import ListDocument

    stream = Stream(issuer=ISSUER, name="s" * 22, interval=30.0)
    content = ListDocument(cursor="c", epoch=1, salts={}, max_token_lifetime=3600)
    issue = stream.next(content, as_of=NOW - 2.0019, now=NOW + 0.9)
    members = parse_json_object(split(issue.sign(key)).payload)
    assert (members["iat"], members["as_of"], members["next_update"]) == (NOW, NOW - 2.002, NOW + 30)
    assert (members["seq"], members["prev"]) == (1, None)
