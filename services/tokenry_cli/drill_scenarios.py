"""The scenarios: what is broken or revoked, in which order, and what has to hold meanwhile."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from tokenry.errors import TokenryError
from tokenry.jose.encoding import parse_json_object
from tokenry_cli.drill_measure import ISSUER, Target, Verdict
from tokenry_cli.drill_probe import BYSTANDER, VICTIM, hurried
from tokenry_cli.drill_run import Holding, limit_of_lists
from tokenry_cli.drill_stage import DrillBroken, Fault, Part, metric
from tokenry_cli.platform import Platform, Refused

if TYPE_CHECKING:
    from collections.abc import Callable

    from tokenry_cli.drill_run import Run

BLOCK_SECONDS: Final = 3600  # if a drill dies after its block, nobody has to lift it for longer
OFF_SECONDS: Final = 600.0  # by which a clock is set off: far beyond every bound
_SKEW: Final = 5.0  # what the alert ClockSkew asks for
_UNAUTHORIZED: Final = {400, 401}


class Scenario(StrEnum):
    """What can be practised."""

    ISSUER_DOWN = "issuer-down"
    REVOCATION_DOWN = "revocation-down"
    CASSANDRA_NODE_LOSS = "cassandra-node-loss"
    S3_DOWN = "s3-down"
    SIGNING_KEY_LEAK = "signing-key-leak"
    CLIENT_SECRET_LEAK = "client-secret-leak"  # noqa: S105 -- a name
    CLOCK_SKEW = "clock-skew"
    STALE_LIST = "stale-list"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """
    One scenario.

    Attributes:
        about: What it does, in a sentence.
        perform: Does it.
        parts: What it has to be able to break.
        clocks: Whether it sets clocks off.
        registry: Whether it writes the registry.
        keys: Whether it writes keys.
        contains: Whether something has to be contained.
        may_be_unavailable: Who is expected not to answer for a while.
        runbook: The page that it practises, below docs/.
    """

    about: str
    perform: Callable[[Run], None]
    parts: frozenset[Part] = frozenset()
    clocks: bool = False
    registry: bool = False
    keys: bool = False
    contains: bool = True
    may_be_unavailable: frozenset[str] = frozenset()
    runbook: str


def _issuer_down(run: Run) -> None:
    admin = run.step("get the administrator's token, while there is an issuer", lambda: _holding(run))
    run.take_away(Part.ISSUER)
    run.wait("services go on with the tokens and keys that they have", run.hold / 2)
    run.revoke_and_contain(admin, while_="without an issuer")
    run.wait("and go on", run.hold / 2)
    back = run.bring_back(Part.ISSUER)
    run.recover(back, "tokens are issued and accepted again", run.all_accept)


def _revocation_down(run: Run) -> None:
    admin = run.step("get the administrator's token", lambda: _holding(run))
    token = run.step("mint a token that will be revoked", run.probes.mint)
    run.probes.watch(token)
    run.take_away(Part.REVOCATION)
    place = run.condemn(Target.TOKEN, token.name)
    run.step(
        "try to revoke it: nobody answers, so nothing is revoked",
        lambda: _in_vain(lambda: run.revoke(admin, token)),
        outcome=lambda why: why,
    )
    run.wait("issuing and checking go on by the last list", run.hold)
    back = run.bring_back(Part.REVOCATION)
    run.until("the same revocation, again and again until it is taken", lambda: _taken(run, admin, token.name))
    run.acknowledged(place)
    run.contained()
    run.recover(back, "tokens are issued and accepted as before", run.all_accept)


def _taken(run: Run, admin: Platform, name: str) -> bool:
    try:
        run.revoke(admin, run.probes.history().tokens[name])
    except TokenryError:
        return False
    return True


def _cassandra_node_loss(run: Run) -> None:
    admin = Platform(run.people.admin)
    run.take_away(Part.NODE)
    run.revoke_and_contain(admin, while_="with one node away")
    run.wait("everything goes on with one node away", run.hold)
    back = run.bring_back(Part.NODE)
    run.recover(back, "tokens are issued and accepted as before", run.all_accept)
    run.revoke_and_contain(admin, while_="with all nodes back")


def _s3_down(run: Run) -> None:
    admin = Platform(run.people.admin)
    run.take_away(Part.CREDENTIALS)
    run.wait("tokens are issued from memory", run.hold)
    run.step("see that the issuer still issues", lambda: _must(run.mints(), "it does not"))
    # A client cannot be disabled now: the issuer does not hear of it. A rule with a block stops it all the same.
    place = run.condemn(Target.CLIENT, VICTIM)
    block = _block(run, admin)
    run.acknowledged(place)
    run.contained()
    run.until("the issuer gives the blocked client nothing", lambda: not _mints(run, VICTIM))
    back = run.bring_back(Part.CREDENTIALS)
    run.over(place)
    _unblock(run, admin, block)
    run.recover(
        back,
        "credentials are read again, and the client gets tokens that are accepted",
        lambda: _reads_credentials(run, since=back) and _victim_is_well(run),
    )


def _signing_key_leak(run: Run) -> None:
    admin = Platform(run.people.admin)
    leaked = run.probes.mint().kid
    place = run.condemn(Target.KEY, leaked)
    _revoke(
        run,
        admin,
        f"revoke the key {leaked}",
        {"type": "KEY", "data": {"kid": leaked}},
        undo="there is none: a key that was revoked stays revoked",
    )
    run.acknowledged(place)
    run.contained()
    run.until("the issuer signs with another key", lambda: _signs_with_another(run, leaked))
    before = _published(run)
    made = run.step(
        "take the key out of the store's schedule, which makes a new standby",
        lambda: run.stage.rotate_emergency(leaked),
        undo="there is none",
        outcome=lambda kids: f"written: {', '.join(kids) or 'nothing'}",
    )
    standby = set(made) - before - {leaked}
    if not standby:
        raise DrillBroken("no new standby was made: see tokenry keys list")
    run.recover(
        run.now,
        "the key has left the JWK Set, and the new standby is in it",
        lambda: leaked not in _published(run) and bool(standby & _published(run)),
    )
    run.until("new tokens are accepted everywhere", run.all_accept)


def _client_secret_leak(run: Run) -> None:
    admin = Platform(run.people.admin)
    thief = hurried(run.people.victim)
    place = run.condemn(Target.CLIENT, VICTIM)
    block = _block(run, admin)
    run.acknowledged(place)
    run.contained()
    secret = run.step(
        "give the client a new secret, and let the old one end",
        lambda: run.stage.rotate_secret(str(run.people.victim.client_id)),
        undo="there is none, and none is needed: another rotation makes another secret",
    )
    run.until("the old secret is refused by the issuer", lambda: _refused(thief))
    run.probes.use_victim(hurried(replace(run.people.victim, client_secret=secret)))
    run.step(
        "revoke what was issued for the client until now",
        lambda: admin.revoke(
            {"type": "CLAIM", "data": {"claims": _victim_claims(run)}, "reason": "drill: secret leak"}
        ),
        undo="tokenry revoke undo ID",
        outcome=lambda answer: f"stored as {answer.get('id')}",
    )
    run.good_again(place)
    lifted = _unblock(run, admin, block)
    run.recover(lifted, "the client gets tokens with its new secret, all accepted", lambda: _victim_is_well(run))
    run.step("see that the old secret is still refused", lambda: _must(_refused(thief), "it is not"))


def _stale_list(run: Run) -> None:
    admin = run.step("get the administrator's token", lambda: _holding(run))
    limit = limit_of_lists(run.stage)
    run.take_away(Part.REVOCATION, Fault.SILENT)
    place = run.condemn(Target.EVERYTHING, "", owed_at=run.now + limit)
    token = run.probes.mint()
    run.until(
        "every validator finds its list too old, and says neither yes nor no",
        lambda: run.all_say(token, Verdict.UNAVAILABLE),
        seconds=limit + run.hold + 60.0,
    )
    run.wait("and stays so: nobody guesses", run.hold)
    run.over(place)
    back = run.bring_back(Part.REVOCATION, Fault.SILENT)
    run.recover(back, "tokens are accepted again", run.all_accept)
    run.revoke_and_contain(admin, while_="after the outage")


def _clock_skew(run: Run) -> None:
    admin = run.step("get the administrator's token", lambda: _holding(run))
    run.step("see that no clock is off", lambda: _must(not _off(run), "the alert ClockSkew would fire already"))
    for seconds in (OFF_SECONDS, -OFF_SECONDS):
        run.on_failure("set the issuer's clock right", lambda: run.stage.turn_clock(Part.ISSUER, 0.0))
        run.step(
            f"set the issuer's clock off by {seconds:+g} s",
            lambda seconds=seconds: run.stage.turn_clock(Part.ISSUER, seconds),  # type: ignore[misc]
            undo="set it right again",
        )
        run.until("its metrics tell, so that the alert ClockSkew fires", lambda: _off(run))
        if seconds > 0:
            run.until("it signs nothing while it is ahead", lambda: not run.mints())
        run.wait("services go on with the tokens that they have", run.hold / 2)
        run.revoke_and_contain(admin, while_="with the issuer's clock off")
        run.step("set the issuer's clock right again", lambda: run.stage.turn_clock(Part.ISSUER, 0.0))
        run.undone()
        run.recover(run.now, "tokens are issued and accepted as before", lambda: not _off(run) and run.all_accept())


PLANS: Final[dict[Scenario, Plan]] = {
    Scenario.ISSUER_DOWN: Plan(
        about="The issuers are away: tokens in use go on, and a revocation works all the same.",
        perform=_issuer_down,
        parts=frozenset({Part.ISSUER}),
        may_be_unavailable=frozenset({ISSUER}),
        runbook="runbooks/ServiceDown.md",
    ),
    Scenario.REVOCATION_DOWN: Plan(
        about="The revocation service is away when something has to be revoked: repeat it until it is taken.",
        perform=_revocation_down,
        parts=frozenset({Part.REVOCATION}),
        runbook="runbooks/RevocationListStale.md",
    ),
    Scenario.CASSANDRA_NODE_LOSS: Plan(
        about="One node of Cassandra is lost: nothing is, and revoking goes on.",
        perform=_cassandra_node_loss,
        parts=frozenset({Part.NODE}),
        runbook="runbooks/StoreUnavailable.md",
    ),
    Scenario.S3_DOWN: Plan(
        about="The issuers cannot read credentials: they go on from memory, and a leaked client is stopped by a rule.",
        perform=_s3_down,
        parts=frozenset({Part.CREDENTIALS}),
        runbook="runbooks/CredentialsStale.md",
    ),
    Scenario.SIGNING_KEY_LEAK: Plan(
        about="A signing key has leaked: it is revoked, the standby signs, and a new standby is made.",
        perform=_signing_key_leak,
        keys=True,
        runbook="operations/incident.md",
    ),
    Scenario.CLIENT_SECRET_LEAK: Plan(
        about="A client's secret has leaked: the client is blocked, gets a new one, and what was issued dies.",
        perform=_client_secret_leak,
        registry=True,
        runbook="operations/incident.md",
    ),
    Scenario.CLOCK_SKEW: Plan(
        about="The issuer's clock is ten minutes off, in both directions.",
        perform=_clock_skew,
        parts=frozenset({Part.ISSUER}),
        clocks=True,
        may_be_unavailable=frozenset({ISSUER}),
        runbook="runbooks/ClockSkew.md",
    ),
    Scenario.STALE_LIST: Plan(
        about="No list arrives for longer than validators accept: they stop saying yes, and come back by themselves.",
        perform=_stale_list,
        parts=frozenset({Part.REVOCATION}),
        may_be_unavailable=frozenset({"token info", "library"}),
        runbook="runbooks/RevocationListStale.md",
    ),
}


# --- what several of them need --------------------------------------------------------------------------------------


def _holding(run: Run) -> Holding:
    return Holding(Platform(run.people.admin))


def _must(holds: bool, otherwise: str) -> None:
    if not holds:
        raise DrillBroken(otherwise)


def _in_vain(act: Callable[[], Any]) -> str:
    """Return how *act* failed, which it must."""
    try:
        act()
    except TokenryError as error:
        return str(error)
    raise DrillBroken("it was answered: something else serves revocations, so this drill shows nothing")


def _mints(run: Run, who: str) -> bool:
    try:
        run.probes.mint(who)
    except TokenryError:
        return False
    return True


def _refused(client: Platform) -> bool:
    """Tell whether the issuer says that these credentials are wrong; that it says nothing is not enough."""
    try:
        client.token()
    except Refused as error:
        return error.status in _UNAUTHORIZED
    except TokenryError:
        return False
    return False


def _victim_claims(run: Run) -> dict[str, str]:
    return {"client_id": str(run.people.victim.client_id)}


def _revoke(run: Run, admin: Platform, text: str, body: dict[str, Any], *, undo: str) -> str:
    """Post one revocation, and return the id of it."""
    answer = run.step(
        text,
        lambda: admin.revoke({**body, "reason": "drill"}),
        undo=undo,
        outcome=lambda found: f"stored as {found.get('id')}",
    )
    if answer.get("status") == "pending":
        raise DrillBroken(f"a second person has to approve it: tokenry revoke approve {answer.get('id')}")
    return str(answer["id"])


def _block(run: Run, admin: Platform) -> str:
    """Block the victim, at validators and at the issuer, and return the id of that."""
    name = _revoke(
        run,
        admin,
        "block the client, at the issuer and at every validator",
        {"type": "CLAIM", "data": {"claims": _victim_claims(run), "block_until": int(time.time()) + BLOCK_SECONDS}},
        undo="tokenry revoke undo ID; it ends by itself after an hour",
    )
    run.on_failure("lift the block", lambda: _lift(admin, name))
    return name


def _unblock(run: Run, admin: Platform, name: str) -> float:
    run.step("lift the block", lambda: _lift(admin, name))
    run.undone()
    return run.now


def _lift(admin: Platform, name: str) -> None:
    admin.change(name, "undo", reason="drill")


def _victim_is_well(run: Run) -> bool:
    try:
        token = run.probes.mint(VICTIM)
    except TokenryError:
        return False
    return run.all_say(token, Verdict.ACCEPTED)


def _signs_with_another(run: Run, leaked: str) -> bool:
    try:
        return run.probes.mint(BYSTANDER).kid != leaked
    except TokenryError:
        return False


def _published(run: Run) -> set[str]:
    """Return the ids of the keys in the JWK Set; none while it cannot be read."""
    answer = Platform(run.people.bystander).get(f"{run.people.bystander.issuer}/.well-known/jwks.json")
    try:
        return {str(key["kid"]) for key in parse_json_object(answer.body)["keys"]}
    except (TokenryError, KeyError, TypeError):
        return set()


def _reads_credentials(run: Run, *, since: float) -> bool:
    """Tell whether a refresh of credentials began after *since*; where metrics are elsewhere that is not known."""
    asked = run.now
    age = metric(run.people.bystander.issuer, "tokenry_credentials_age_seconds")
    return age is None or asked - age > since


def _off(run: Run) -> bool:
    """Tell whether the alert ClockSkew would fire, by what the services' metrics say."""
    people = run.people.bystander
    for url in (people.issuer, people.revocation, people.tokeninfo):
        clock = None if url is None else metric(url, "tokenry_clock_timestamp_seconds")
        if clock is not None and abs(clock - time.time()) > _SKEW:
            return True
    ahead = metric(people.issuer, "tokenry_issuer_clock_ahead_seconds")
    return ahead is not None and ahead > 2.0  # noqa: PLR2004 -- the alert's own number
