"""`tokenry drill`: practise an outage or a leak for real, measure it, and write a dated report."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from tokenry.errors import ConfigurationError, TokenryError
from tokenry.serving.metrics import package_version
from tokenry.token_validator import TokenValidator
from tokenry.validation.policy import ANY_AUDIENCE
from tokenry_cli.confirming import confirm
from tokenry_cli.context import load_context
from tokenry_cli.dev_folder import DevFolder, write_private
from tokenry_cli.drill_measure import measure
from tokenry_cli.drill_probe import Clients, Probes, hurried, library_judge, token_info_judge
from tokenry_cli.drill_report import Report
from tokenry_cli.drill_run import Run
from tokenry_cli.drill_scenarios import PLANS, Plan, Scenario
from tokenry_cli.drill_stage import ContextStage, DevStage, DrillBroken, NotContained, NotHere, People
from tokenry_cli.invocation import current
from tokenry_cli.output import ExitCode, Format, escape, fail, log_to_stderr, people, show
from tokenry_cli.processes import ServiceFailed, free_port_base
from tokenry_cli.token import ContextFile, Output

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tokenry_cli.drill_probe import Judge
    from tokenry_cli.drill_stage import Stage

READY_SECONDS: Final = 60.0
PRODUCTION: Final = "production"
TOKEN_INFO: Final = "token info"  # noqa: S105 -- a name
LIBRARY: Final = "library"


def drill(
    scenario: Annotated[Scenario, typer.Argument(help="What to practise.")],
    report_folder: Annotated[Path, typer.Option(help="Where the report goes, as .md and .json.")] = Path("drills"),
    hold: Annotated[float, typer.Option(min=1, max=3600, help="Seconds for which something stays broken.")] = 10.0,
    folder: Annotated[
        Path | None,
        typer.Option(help="Folder of a `tokenry dev` that does not run, for the drill to start. Default: a fresh one."),
    ] = None,
    victim: Annotated[
        str | None,
        typer.Option(metavar="CONTEXT", help="With --context: the client that something happens to."),
    ] = None,
    bystander: Annotated[
        str | None,
        typer.Option(metavar="CONTEXT", help="With --context: a client that has nothing to do with it."),
    ] = None,
    refuse_age: Annotated[
        float, typer.Option(min=31, help="With --context: TOKENRY_LIST_REFUSE_AGE of its validators, in seconds.")
    ] = 900.0,
    cassandra: Annotated[
        bool, typer.Option("--cassandra", help="With --context: its revocations are in Cassandra.")
    ] = False,
    context: ContextFile = None,
    output: Output = Format.TABLE,
) -> None:
    """
    Practise an outage or a leak: break or leak something for real, mend it, measure, and write a report.

    Without --context it starts a `tokenry dev` of its own and breaks nothing else. With one, which has to be said on
    the command line, it gives the commands and asks you to break and mend by hand; a context that does not say that it
    is not production counts as production, and needs --yes-on.
    """
    plan = PLANS[scenario]
    log_to_stderr()
    with ExitStack() as stack:
        try:
            if context is None:
                stage: Stage = _own(stack, folder, plan)
            else:
                stage = _named(context, victim=victim, bystander=bystander, refuse_age=refuse_age, cassandra=cassandra)
                stage.check(plan.parts, clocks=plan.clocks, registry=plan.registry, keys=plan.keys)
                confirm(f"{plan.about} Type {scenario} to begin on {stage.what}", scenario)
            report = perform(scenario, plan, stage, hold=hold, say=_say)
        except NotHere as error:
            fail(f"{scenario}: {error}", code=ExitCode.USAGE, advice=_WHERE)
        except ConfigurationError as error:
            fail(str(error), code=ExitCode.USAGE)
        except (TokenryError, ServiceFailed) as error:
            fail(f"{error}; the drill has not begun")
        except KeyboardInterrupt:
            sys.exit(ExitCode.INTERRUPTED)
    _finish(report, plan, report_folder, output)


_WHERE: Final = "a context of a staging platform (--context), or `make soak`, whose drills have what is needed"


def _own(stack: ExitStack, root: Path | None, plan: Plan) -> DevStage:
    folder = DevFolder(root or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tokenry-drill-"))))
    stack.enter_context(folder.locked())
    stage = DevStage(folder, port_base=free_port_base(3))
    stage.check(plan.parts, clocks=plan.clocks, registry=plan.registry, keys=plan.keys)
    people.print("starting issuer, token info and revocation service …")
    return stack.enter_context(stage)


def _named(
    context: str, *, victim: str | None, bystander: str | None, refuse_age: float, cassandra: bool
) -> ContextStage:
    hit = load_context(os.environ, file=victim or context, identity="client")
    admin = load_context(os.environ, file=context, identity="admin")
    other = admin if bystander is None else load_context(os.environ, file=bystander, identity="client")
    environment = admin.environment or PRODUCTION
    if environment == PRODUCTION and (admin.name is None or current().yes_on != admin.name):
        fail(
            f"{admin.name or context} is a context of production, or does not say of what",
            code=ExitCode.NOT_ALLOWED,
            advice=f"practise on staging (member `environment`), or say --yes-on {admin.name or 'NAME'}",
        )
    for each in (hit, admin, other):
        each.credentials()
        each.revocation_url()
        each.tokeninfo_url()
        if each.issuer != admin.issuer:
            raise ConfigurationError([f"the contexts are of two platforms: {each.issuer} and {admin.issuer}"])
    if hit.client_id in {admin.client_id, other.client_id}:
        raise ConfigurationError(
            ["the client that something happens to must be another one: name it with --victim CONTEXT"]
        )
    return ContextStage(
        People(bystander=other, victim=hit, admin=admin),
        name=admin.name or context,
        environment=environment,
        environ=os.environ,
        ask=_ask,
        refuse_age=refuse_age,
        has_nodes=cassandra,
    )


def _ask(question: str, word: str) -> None:
    """Wait until the operator says that it is done; no --yes can say that beforehand."""
    if current().no_input or not sys.stdin.isatty():
        raise DrillBroken(f"{question}: nobody is there to do it")
    while True:
        people.print(f"[bold]{escape(question)}[/bold]: ", end="")
        line = sys.stdin.readline()
        if line.strip() == word:
            return
        if not line:
            raise DrillBroken("the terminal was closed")


def perform(
    scenario: Scenario,
    plan: Plan,
    stage: Stage,
    *,
    hold: float,
    say: Callable[[str], None],
    now: Callable[[], float] = time.monotonic,
    wall: Callable[[], float] = time.time,
) -> Report:
    """
    Go through *scenario* on *stage*, and return the report, also of a drill that broke off.

    Args:
        scenario: Which.
        plan: What it does.
        stage: Where; everything runs.
        hold: Seconds for which something stays broken.
        say: Shows a line of progress.
        now: Seconds of a clock that is never set.
        wall: Unix seconds.

    Raises:
        TokenryError: It could not begin.
    """
    began, started_at = now(), wall()
    cast = stage.people()
    clients = Clients(bystander=hurried(cast.bystander), victim=hurried(cast.victim))
    faults: list[str] = []
    in_vain = False
    with ExitStack() as stack:
        judges = dict(_judges(stack, cast, stage))
        probes = stack.enter_context(Probes(clients, judges, now=lambda: now() - began))
        run = Run(stage, probes, hold=hold, say=say)
        try:
            run.well_before()
            plan.perform(run)
            run.wait("see that it stays so", hold / 2)
        except (DrillBroken, ServiceFailed) as error:
            in_vain = isinstance(error, NotContained)
            faults.append(str(error).partition("\n")[0])
            say(f"✗ {faults[0]}")
        except KeyboardInterrupt:
            faults.append("interrupted")
            say("✗ interrupted; mending what was broken")
        finally:
            faults += run.mend()
    return Report(
        scenario=scenario,
        started_at=started_at,
        seconds=now() - began,
        platform=stage.what,
        environment=stage.environment,
        version=package_version(),
        steps=tuple(run.steps),
        measured=measure(probes.history()),
        recovered=run.recovered,
        may_be_unavailable=plan.may_be_unavailable,
        contains=plan.contains,
        faults=tuple(faults),
        notes=stage.notes,
        in_vain=in_vain,
    )


def _judges(stack: ExitStack, cast: People, stage: Stage) -> Iterator[tuple[str, Judge]]:
    who = cast.bystander
    if who.tokeninfo is not None:
        yield TOKEN_INFO, token_info_judge(who.tokeninfo)
    validator = TokenValidator(
        who.issuer,
        audience=ANY_AUDIENCE,
        revocations_url=who.revocation_url(),
        list_warn_age=min(120.0, stage.refuse_age / 2),
        list_refuse_age=stage.refuse_age,
        name="drill-library",
    )
    validator.start()
    stack.callback(validator.stop)
    validator.wait_ready(READY_SECONDS)
    yield LIBRARY, library_judge(validator)


def _finish(report: Report, plan: Plan, folder: Path, output: Format) -> None:
    document = report.to_dict()
    path = folder / f"{report.name}.md"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_private(path, report.to_markdown().encode())
        write_private(path.with_suffix(".json"), json.dumps(document, indent=2).encode())
    except OSError as error:
        sys.stdout.write(report.to_markdown())
        fail(f"the report cannot be written to {folder}: {error.strerror}; it is above")
    if output is Format.JSON:
        show(document, form=Format.JSON)
    else:
        shown = ("time_to_contain", "recovered", "wrongly_accepted", "wrongly_refused", "unavailable")
        show({"scenario": str(report.scenario), **{key: document[key] for key in shown}, "report": str(path)},
             form=Format.TABLE)  # fmt: skip
    for finding in report.findings:
        people.print(f"[red]✗[/red] {escape(finding)}")
    if report.went_well:
        people.print(f"[green]it went as it should[/green]; the page that this practises: docs/{plan.runbook}")
        return
    if "interrupted" in report.faults:
        raise typer.Exit(ExitCode.INTERRUPTED)
    raise typer.Exit(ExitCode.WAITED_IN_VAIN if report.in_vain else ExitCode.FAILED)


def _say(text: str) -> None:
    people.print(escape(text))
