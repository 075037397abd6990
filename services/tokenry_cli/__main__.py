"""The command `tokenry`."""

from __future__ import annotations

import typer

from tokenry_cli import revoke, token
from tokenry_cli.demo import demo
from tokenry_cli.dev import dev
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
app.command("serve", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(serve)
app.add_typer(token.app, name="token")
app.add_typer(revoke.app, name="revoke")


def main() -> None:
    """Run the command line of this process."""
    app()


if __name__ == "__main__":
    main()
