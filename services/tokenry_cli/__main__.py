"""The command `tokenry`."""

from __future__ import annotations

import typer

from tokenry_cli import admin, audit, client, credentials, extend, keys, revoke, token, validators
from tokenry_cli.canary import canary
from tokenry_cli.demo import demo
from tokenry_cli.dev import dev
from tokenry_cli.doctor import doctor
from tokenry_cli.routes import routes
from tokenry_cli.serve import serve

app = typer.Typer(
    name="tokenry",
    help="Service-to-service tokens: issue, validate, revoke.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,  # a traceback with local variables would show secrets
)
app.command("dev")(dev)
app.command("demo")(demo)
_PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True}
app.command("serve", context_settings=_PASSED_ON)(serve)
app.command("healthcheck", context_settings=_PASSED_ON)(admin.healthcheck)
app.add_typer(admin.app, name="admin")
app.command("doctor")(doctor)
app.command("routes")(routes)
app.command("canary")(canary)
app.add_typer(client.app, name="client")
app.add_typer(credentials.app, name="credentials")
app.add_typer(keys.app, name="keys")
app.add_typer(token.app, name="token")
app.add_typer(revoke.app, name="revoke")
validators.app.command("extend")(extend.extend)
validators.app.command("extend-key")(extend.extend_key)
app.add_typer(validators.app, name="validators")
app.add_typer(audit.app, name="audit")


def main() -> None:
    """Run the command line of this process."""
    app()


if __name__ == "__main__":
    main()
