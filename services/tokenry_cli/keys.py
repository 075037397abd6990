"""`tokenry keys`: look at the signing keys, and let the next one sign, by the operator's own rights on the store."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.table import Table

from tokenry.clock import SystemClock
from tokenry.errors import ConfigurationError, TokenryError
from tokenry.revocation.lists import RevocationList
from tokenry_admin.key_actions import REVOKED, KeyView
from tokenry_admin.key_opening import open_keys, open_store
from tokenry_admin.key_rotation import ISSUERS_REFRESH, KeyNeeded, NoSuchKey
from tokenry_admin.key_settings import KeySettings
from tokenry_admin.key_store import NoCustody
from tokenry_cli.app import App
from tokenry_cli.auditing import audited, operator
from tokenry_cli.confirming import DryRun, confirm, confirm_if_protected
from tokenry_cli.context import load_context
from tokenry_cli.environment import known_to
from tokenry_cli.output import ExitCode, Format, escape, fail, log_to_stderr, people, print_table, show
from tokenry_cli.platform import Platform
from tokenry_cli.rehearsal import RehearsedStore
from tokenry_cli.token import ContextFile, Identity, Output
from tokenry_registry.key_schedule import KeyState
from tokenry_registry.ports import WriteConflict, WriteRefused
from tokenry_registry.signing_keys import KeyUse, StoredKey

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

    from tokenry_admin.audit import AuditLog
    from tokenry_admin.key_actions import KeyActions
    from tokenry_cli.context import Context
    from tokenry_registry.ports import WritableStore

app = App(name="keys", no_args_is_help=True, help="The signing keys: look at them, rotate, retire.")

Use = Annotated[KeyUse, typer.Option("--use", help="What the keys sign.")]
Kid = Annotated[str, typer.Argument(help="Id of the key.")]
Kms = Annotated[
    bool | None, typer.Option("--kms/--file", help="Where a new key for tokens is held. Default: TOKENRY_KEY_CUSTODY.")
]
_STATES = {KeyState.ACTIVE: "Signing"}
_COLUMNS = ("KID", "ALG", "STATE", "PUBLISHED", "SIGNS FROM", "SIGNS UNTIL", "REMOVABLE AFTER", "TOKENS ALIVE")
_NONE = "–"  # noqa: RUF001 -- a dash in a table
_SOON = 20 * 3600  # seconds: so near, the hour says more than the day


@app.command("list")
def list_(
    use: Annotated[KeyUse | None, typer.Option("--use", help="Only keys that sign this.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="Also those that have left the JWK Set.")] = False,
    identity: Identity = "admin",
    context: ContextFile = None,
    output: Output = Format.TABLE,
) -> None:
    """
    Show every key: what it does now, when that changes, and from when nothing needs it any more.

    With a context or TOKENRY_REVOCATION_URL also which are revoked, and how many tokens of a key are alive.
    """
    now, live = int(time.time()), _Live.ask(context, identity)

    async def look(actions: KeyActions) -> tuple[tuple[KeyView, ...], Mapping[str, str], int | None]:
        return *(await actions.views(use)), await actions.next_rotation_at()

    views, refused, next_at = _run(look, live=live)
    shown = [view for view in views if all_ or view.state != KeyState.RETIRED]
    for path, why in refused.items():
        people.print(f"[yellow]warning:[/yellow] {escape(path)} is not in force: {escape(why)}")
    if output is Format.JSON:
        rows = [{**view.to_dict(), "tokens_alive": live.of(view, views, now)} for view in shown]
        show({"keys": rows, "next_rotation_at": next_at, "refused": dict(refused)}, form=Format.JSON)
        return
    print_table(_table(shown, now=now, alive=lambda view: live.of(view, views, now)))


@app.command("show")
def show_(
    kid: Kid,
    stored: Annotated[
        bool, typer.Option("--stored", help="Print the object as it is stored, sealed: for TOKENRY_INTROSPECTION_KEYS.")
    ] = False,
    identity: Identity = "admin",
    context: ContextFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Show one key."""
    if stored:
        sys.stdout.buffer.write(_read_object(kid))
        return
    live = _Live.ask(context, identity)
    view = _run(lambda actions: actions.view(kid), live=live)
    document = view.to_dict()
    if output is Format.TABLE:
        times = {name: value for name, value in document.items() if name.endswith(("_at", "_until"))}
        document |= {name: _NONE for name, value in times.items() if value is None}
        document = {name: value for name, value in document.items() if value is not None}
    show(document, form=output)


@app.command("rotate")
def rotate(
    use: Use = KeyUse.TOKEN,
    if_due: Annotated[
        bool, typer.Option("--if-due", help="Only what is due by TOKENRY_KEY_ROTATION_PERIOD, for all uses: for cron.")
    ] = False,
    emergency: Annotated[
        str | None, typer.Option("--emergency", metavar="KID", help="This key has leaked: take it away at once.")
    ] = None,
    kms: Kms = None,
    dry_run: DryRun = False,
    identity: Identity = "admin",
    context: ContextFile = None,
    output: Output = Format.TABLE,
) -> None:
    """
    Let the published standby sign, and publish the next one. Tokens of the key before stay good.

    The standby signs as soon as every cache knows it: at once, or 11 minutes after it was published.
    """
    live = _Live.ask(context, identity)
    if if_due:
        if emergency is not None:
            fail("--if-due and --emergency exclude one another", code=ExitCode.USAGE)
        if dry_run:
            _rehearse(_rotate_due, kms=kms, live=live)
            return
        _report(_run(_rotate_due, kms=kms, live=live), output, live=live, nothing="nothing is due")
        return
    if emergency is not None:
        if dry_run:
            _rehearse(lambda actions: actions.leaked(emergency), kms=kms, live=live)
            return
        confirm("Every token of this key dies, also good ones. Type the kid to confirm", emergency)
        written = _run(lambda actions: actions.leaked(emergency), kms=kms, live=live)
        _report(written, output, live=live)
        people.print(
            f"{escape(emergency)} is out of the JWK Set: validators refuse its tokens when they read the set again, "
            "after some minutes.\nNow revoke it, so that they refuse within 31 s, and no issuer ever uses it again:\n"
            f"  tokenry revoke key {escape(emergency)} --reason key-compromise --ticket TICKET --wait\n"
            "If it leaked from the store, so did the envelope key: see docs/operations/incident.md.\n"
            "There is no undo."
        )
        return
    if dry_run:
        _rehearse(lambda actions: actions.rotate(use), kms=kms, live=live)
        return
    confirm_if_protected("The next key will sign, and there is no undo")
    written = _run(lambda actions: actions.rotate(use), kms=kms, live=live)
    _report(written, output, live=live, nothing="a rotation is under way already: see tokenry keys list")
    people.print(
        "There is no undo: the key before does not sign again. It stays in the JWK Set for its tokens, and leaves it "
        "by itself; from REMOVABLE AFTER on: tokenry keys retire KID"
    )


@app.command("publish")
def publish(use: Use = KeyUse.TOKEN, kms: Kms = None, dry_run: DryRun = False, output: Output = Format.TABLE) -> None:
    """Publish one more standby, which signs when those that wait now have had their turn."""
    if dry_run:
        _rehearse(lambda actions: actions.publish(use), kms=kms)
        return
    confirm_if_protected("One more key will be published")
    written = _run(lambda actions: actions.publish(use), kms=kms)
    _report(written, output)
    people.print(f"Undo: tokenry keys retire {written[-1].kid}")


@app.command("retire")
def retire(
    kid: Kid,
    dry_run: DryRun = False,
    identity: Identity = "admin",
    context: ContextFile = None,
    output: Output = Format.TABLE,
) -> None:
    """
    Take a key out of the JWK Set before its time. Refused while a token that is alive could need it (exit status 5).

    Its object stays; nobody deletes keys.
    """
    live = _Live.ask(context, identity)
    if dry_run:
        _rehearse(lambda actions: actions.retire(kid), live=live)
        return
    view = _run(lambda actions: actions.view(kid), live=live)
    confirm(f"The key is {_state(view)}. Type the kid to take it out of the JWK Set", kid)
    _report(_run(lambda actions: actions.retire(kid), live=live), output, live=live)
    people.print("It leaves the JWK Set within a minute. There is no undo; nothing needs it.")
    if view.kms_key_id is not None:
        people.print(f"AWS KMS still holds it: aws kms schedule-key-deletion --key-id {escape(view.kms_key_id)}")


# --- what the commands share ----------------------------------------------------------------------------------


class _Live:
    """What the revocation service knows: which keys are revoked, and how many tokens are alive; or nothing."""

    def __init__(
        self, issuer: str = "", revocations: RevocationList | None = None, *, platform: Platform | None = None
    ) -> None:
        self._issuer = issuer
        self._revocations = revocations
        self._platform = platform
        self._total: int | None = None
        self._asked = False

    @classmethod
    def ask(cls, context_file: Any, identity: str) -> _Live:  # noqa: ANN401 -- typer's own annotation of a path
        """Ask, if it is known where; an answer that does not come is said and makes everything unknown."""
        try:
            context: Context = load_context(os.environ, file=context_file, identity=identity)
        except ConfigurationError:
            return cls()
        if context.revocation is None or context.client_id is None:
            return cls()
        platform = Platform(context)
        try:
            document = platform.entries()
        except TokenryError as error:
            people.print(f"[yellow]warning:[/yellow] which keys are revoked is not known: {escape(str(error))}")
            return cls()
        revocations = RevocationList.of(
            document.entries,
            salts=document.salts,
            epoch=document.epoch,
            max_token_lifetime=document.max_token_lifetime,
        )
        return cls(context.issuer, revocations, platform=platform)

    def revoked(self, kids: Collection[str]) -> Collection[str]:
        """Return which of *kids* are revoked."""
        revocations = self._revocations
        if revocations is None:
            return ()
        return {kid for kid in kids if revocations.has_key(self._issuer, kid)}

    def of(self, view: KeyView, views: Sequence[KeyView], now: int) -> int | None:
        """
        Return how many tokens of the key are alive; None where that is not known.

        Tokens are counted by client, not by key. So it is known of a key that cannot have a living token, and of the
        one that signs when no other can.
        """
        if view.use != KeyUse.TOKEN or view.state == REVOKED:
            return None
        if not _may_have_living_tokens(view, now):
            return 0
        others = (each for each in views if each.kid != view.kid and each.use == view.use)
        if any(_may_have_living_tokens(each, now) for each in others):
            return None
        return self._all_alive(view.kid)

    def _all_alive(self, kid: str) -> int | None:
        if self._platform is not None and not self._asked:
            self._asked = True
            try:
                answer = self._platform.revoke({"type": "KEY", "data": {"kid": kid}}, dry_run=True)
            except TokenryError as error:
                people.print(f"[yellow]warning:[/yellow] tokens alive are not known: {escape(str(error))}")
            else:
                total = answer.get("all_live_tokens")
                self._total = total if isinstance(total, int) else None
        return self._total


def _may_have_living_tokens(view: KeyView, now: int) -> bool:
    began = view.activate_at <= now or view.state == KeyState.ACTIVE
    return began and (view.removable_at is None or now < view.removable_at)


async def _rotate_due(actions: KeyActions) -> tuple[StoredKey, ...]:
    written: tuple[StoredKey, ...] = ()
    for use in actions.uses:
        written += await actions.rotate_due(use)
    return written


def _rehearse(
    act: Callable[[KeyActions], Awaitable[Sequence[StoredKey]]], *, kms: bool | None = None, live: _Live | None = None
) -> None:
    """Do *act* without writing, and say what would be written. No key is made in AWS KMS: that could not be undone."""
    views, _ = _run(lambda actions: actions.views(), live=live)
    known = {view.kid for view in views}
    written = _run(act, kms=kms, live=live, dry_run=True)
    for key in written:
        people.print(f"would change {escape(key.kid)}" if key.kid in known else f"would make a new key for {key.use}s")
    people.print(f"{'' if written else 'nothing would be done; '}nothing was changed")


def _run(
    act: Callable[[KeyActions], Awaitable[Any]],
    *,
    kms: bool | None = None,
    live: _Live | None = None,
    dry_run: bool = False,
) -> Any:  # noqa: ANN401 -- as *act*
    """Return what *act* returns, or end the command with what went wrong and what to do."""
    log_to_stderr()
    try:
        settings = KeySettings.from_environment(known_to(KeySettings, os.environ))
        if dry_run and (settings.key_custody == "kms" if kms is None else kms):
            fail("a new key in AWS KMS cannot be rehearsed; nothing was changed", code=ExitCode.USAGE)
        return asyncio.run(_acting(settings, act, kms=kms, live=live or _Live(), dry_run=dry_run))
    except ConfigurationError as error:
        fail(str(error), code=ExitCode.USAGE)
    except TokenryError as error:
        _explain(error)


async def _acting(
    settings: KeySettings,
    act: Callable[[KeyActions], Awaitable[Any]],
    *,
    kms: bool | None,
    live: _Live,
    dry_run: bool,
) -> Any:  # noqa: ANN401 -- as *act*
    real = open_store(settings)
    store: WritableStore = RehearsedStore(real) if dry_run else real
    try:
        clock = SystemClock()
        with audited(os.environ, clock=clock, dry_run=dry_run) as audit:
            done = await act(open_keys(settings, store, clock=clock, kms=kms, revoked=live.revoked))
            _note(audit, done)
            return done
    finally:
        await store.close()


def _note(audit: AuditLog, done: object) -> None:
    """Write down the keys that a command has written; what only looks returns none."""
    written = [key for key in done if isinstance(key, StoredKey)] if isinstance(done, tuple) else []
    if written:
        times = [
            {
                "kid": key.kid,
                "use": str(key.use),
                "activate_at": key.times.activate_at,
                "retire_at": key.times.retire_at,
            }
            for key in written
        ]
        audit.noted("keys written", actor=operator(), kids=[key.kid for key in written], keys=times)


def _explain(error: TokenryError) -> NoReturn:
    match error:
        case NoSuchKey():
            fail(str(error), code=ExitCode.NOT_FOUND)
        case KeyNeeded():
            fail(f"{error}; nothing was changed", code=ExitCode.CONFLICT)
        case WriteConflict():
            fail("somebody else changes keys at the same time; run the same again", code=ExitCode.CONFLICT)
        case WriteRefused():
            fail(f"{error}: this needs the rights of deploy/iam/rotator.json", code=ExitCode.NOT_ALLOWED)
        case NoCustody():
            fail(f"{error}: set TOKENRY_ENVELOPE_KEY_FILE or TOKENRY_LIST_ENVELOPE_KEY_FILE", code=ExitCode.USAGE)
        case _:
            fail(f"{error}; running the same again is safe: it goes on where this ended")


def _read_object(kid: str) -> bytes:
    async def read(store: WritableStore) -> bytes:
        try:
            listed = await store.list("keys/")
            if f"keys/{kid}.json" not in listed:
                raise NoSuchKey(f"there is no key {kid}")
            found = await store.get(f"keys/{kid}.json")
        finally:
            await store.close()
        return b"" if found is None else found.body

    try:
        return asyncio.run(read(open_store(KeySettings.from_environment(known_to(KeySettings, os.environ)))))
    except ConfigurationError as error:
        fail(str(error), code=ExitCode.USAGE)
    except TokenryError as error:
        _explain(error)


def _report(
    written: Sequence[StoredKey], output: Format, *, live: _Live | None = None, nothing: str = "nothing to do"
) -> None:
    """Print what became of the keys that were *written*, and what happens next."""
    kids = dict.fromkeys(key.kid for key in written)
    views, _ = _run(lambda actions: actions.views(), live=live)
    changed = [view for view in views if view.kid in kids]
    if output is Format.JSON:
        show({"keys": [view.to_dict() for view in changed]}, form=Format.JSON)
    if not changed:
        people.print(nothing)
        return
    now = int(time.time())
    for view in changed:
        people.print(f"[green]✓[/green] {view.kid}  {view.use}  {_next(view, now)}")


def _next(view: KeyView, now: int) -> str:
    """Return in words what *view* does, and what comes next."""
    match view.state:
        case KeyState.ACTIVE:
            return f"signs, as soon as issuers have read it: {ISSUERS_REFRESH} s at most"
        case KeyState.PUBLISHED:
            return f"published; signs from {_when(view.activate_at, now)}, or as soon as it has to"
        case KeyState.RETIRING:
            return f"no longer signs; its last token is over {_when(view.removable_at, now)}"
        case KeyState.RETIRED:
            return "has left the JWK Set"
        case _:
            return view.state


def _table(views: Sequence[KeyView], *, now: int, alive: Callable[[KeyView], int | None]) -> Table:
    uses = {view.use for view in views} - {str(KeyUse.TOKEN)}
    table = Table(box=None, pad_edge=False, title=None)
    for name in (*_COLUMNS, *(["SIGNS"] if uses else []), *(["HELD"] if _any_managed(views) else [])):
        table.add_column(
            name, overflow="fold", justify="right" if name == "TOKENS ALIVE" else "left", min_width=len(name)
        )
    for view in views:
        count = alive(view)
        row = [
            view.kid, view.alg, _state(view), _when(view.publish_at, now), _when(view.activate_at, now),
            _when(view.signs_until, now), _when(view.removable_at, now), "-" if count is None else f"{count:,}",
        ]  # fmt: skip
        row += [f"{view.use}s"] if uses else []
        row += [view.custody] if _any_managed(views) else []
        table.add_row(*(escape(cell) for cell in row))
    return table


def _any_managed(views: Sequence[KeyView]) -> bool:
    return any(view.custody != "file" for view in views)


def _state(view: KeyView) -> str:
    return next((name for state, name in _STATES.items() if view.state == state), view.state.capitalize())


def _when(seconds: int | None, now: int) -> str:
    """Return Unix *seconds* for people: the hour if it is near, else the day."""
    if seconds is None:
        return _NONE
    when = time.gmtime(seconds)
    if abs(seconds - now) < _SOON:
        return time.strftime("%H:%MZ", when)
    return time.strftime("%d %b" if when.tm_year == time.gmtime(now).tm_year else "%d %b %Y", when)
