"""
Runs the code of a documentation page: `python -m tests.support.doc_pages PAGE FOLDER`.

A Python block that begins with `# name.py` is that file; files called `test_….py` are run by pytest. The other
Python blocks are run one after another, as one program (with `await` where a page uses it), against a fake
platform and a service that is protected by it; `https://issuer.example` and `https://orders.example` stand for
the two.
"""

import ast
import asyncio
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```\s*$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"# ([a-z_]+\.py)\n")


@dataclass(frozen=True)
class Block:
    """A fenced block."""

    language: str
    text: str
    line: int

    @property
    def file(self) -> str | None:
        """The name of the file that it is, if it is one."""
        found = _FILE.match(self.text) if self.language == "python" else None
        return found[1] if found else None


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of *page*."""
    text = page.read_text()
    return [Block(found[1], found[2], text.count("\n", 0, found.start()) + 2) for found in _FENCE.finditer(text)]


def run(page: Path, folder: Path) -> None:
    """Run everything of *page* inside *folder*."""
    found = [block for block in blocks(page) if block.language == "python"]
    for block in found:
        if block.file is not None:
            (folder / block.file).write_text(block.text)
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    tests = sorted(folder.glob("test_*.py"))
    if tests:
        settings = ("asyncio_mode=auto", "asyncio_default_fixture_loop_scope=function")
        options = ["-q", "-W", "error", "-p", "no:cacheprovider", "--rootdir", str(folder)]
        options += [option for setting in settings for option in ("-o", setting)]
        subprocess.run([sys.executable, "-m", "pytest", *options, *tests], check=True)
    snippets = [block for block in found if block.file is None]
    if snippets:
        with _surroundings() as (issuer, orders):
            _execute(page, snippets, {"https://issuer.example": issuer, "https://orders.example": orders})


def _execute(page: Path, snippets: list[Block], replaced: dict[str, str]) -> None:
    namespace: dict[str, object] = {"__name__": "__main__"}
    for block in snippets:
        source = block.text
        for name, url in replaced.items():
            source = source.replace(name, url)
        tree = ast.increment_lineno(_parse(source), block.line - 1)
        code = compile(tree, str(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        if code.co_flags & inspect.CO_COROUTINE:
            asyncio.run(eval(code, namespace))  # noqa: S307 - our own pages
        else:
            exec(code, namespace)  # noqa: S102 - our own pages


def _parse(source: str) -> ast.Module:
    tree = compile(source, "page", "exec", flags=ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    assert isinstance(tree, ast.Module)
    return tree


@contextmanager
def _surroundings() -> Iterator[tuple[str, str]]:
    """Run a platform and a protected service, and set the environment of a client."""
    from tests.support.frameworks import wsgi_caller
    from tokenry.http.fetch import Headers, Request, Response
    from tokenry.testing import FakeIssuer
    from tokenry.testing.server import LoopbackServer
    from tokenry.wsgi import AuthMiddleware

    with FakeIssuer() as issuer:

        def orders(environ, start_response):  # type: ignore[no-untyped-def]
            start_response("200 OK", [("Content-Type", "application/json")])
            return [b'{"orders": []}']

        call = wsgi_caller(AuthMiddleware(orders, issuer.validator()))

        def answer(request: Request) -> Response:
            fields = [(name, value) for name, value in request.headers.items() if name.lower() == "authorization"]
            got = call(request.method, "/orders", fields)
            return Response(status=got.status, headers=Headers(got.headers.items()), body=got.body)

        server = LoopbackServer(answer)
        os.environ.update(issuer.environment())
        os.environ["OAUTH2_ACCESS_TOKEN_URL"] = f"{issuer.issuer}/oauth2/access_token"
        try:
            yield issuer.issuer, server.url
        finally:
            server.close()


if __name__ == "__main__":
    run(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve())
