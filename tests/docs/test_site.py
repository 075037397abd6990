"""The documentation's site is built from the pages, with every link, and loads nothing from anywhere else."""

import re
from html.parser import HTMLParser

import pytest

from tests.support import site


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site") / "site"
    site.build(folder)
    return folder


class Loads(HTMLParser):
    """What a page loads, and where its links lead."""

    def __init__(self):
        super().__init__()
        self.loaded, self.links, self.policy = [], [], None

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        elif tag in {"link", "script", "img", "iframe", "source", "form"}:
            self.loaded += [given[name] for name in ("href", "src", "action") if given.get(name)]
        if tag == "meta" and given.get("http-equiv") == "Content-Security-Policy":
            self.policy = given["content"]


def read(path):
    parser = Loads()
    parser.feed(path.read_text())
    return parser


def test_every_page_is_there_and_in_the_navigation(built):
    found = site.pages()
    listed = [place for _, pages in site.navigation(found) for _, place in pages]
    assert sorted(listed) == sorted(found)
    for place in found:
        page = built / re.sub(r"README\.md$", "index.md", place)
        assert page.with_suffix(".html").is_file(), place


@pytest.mark.parametrize(
    "page",
    [
        "first-token", "call-a-service", "protect-aiohttp", "protect-starlette", "protect-fastapi", "protect-flask",
        "protect-django", "protect-grpc", "protect-asgi-wsgi", "testing", "outages", "moving", "errors",
        "introspection", "bound-tokens", "agent", "doctor", "metrics", "public-api",
    ],
)  # fmt: skip
def test_the_pages_by_task_are_there(built, page):
    assert (built / "docs" / "library" / f"{page}.html").is_file()
    assert f'href="{page}.html"' in (built / "docs" / "library" / "index.html").read_text().replace('"./', '"')


def test_no_page_loads_anything_from_elsewhere(built):
    pages = list(site.files(built, ".html"))
    assert len(pages) > 60
    for path in pages:
        page = read(path)
        assert [url for url in page.loaded if re.match(r"(https?:)?//", url)] == [], path
        assert page.policy.startswith("default-src 'self';"), path
    scripts = list(site.files(built, ".js"))
    assert scripts
    for path in scripts:
        assert b"https://" not in path.read_bytes(), path
    for path in site.files(built, ".css"):
        assert re.search(rb"""@import|url\(\s*["']?(https?:)?//""", path.read_bytes()) is None, path


def test_every_link_between_pages_leads_to_a_file(built):
    for path in site.files(built, ".html"):
        for url in read(path).links:
            target = url.partition("#")[0]
            if target and not re.match(r"[a-z]+:|/", target):
                found = (path.parent / target).resolve()
                assert (found / "index.html" if found.is_dir() else found).is_file(), (path, url)


def test_a_link_that_leads_nowhere_stops_the_build():
    with pytest.raises(site.BrokenLink, match=r"a/b\.md: \.\./nowhere\.py"):
        site.without_source_links("[x](../nowhere.py)", place="a/b.md", known=frozenset())


def test_the_generator_minds_anchors_that_do_not_exist(tmp_path):
    page = tmp_path / "README.md"
    page.write_text("# One\n\n[there](#nowhere)\n")
    with pytest.raises(RuntimeError, match="anchor does not exist"):
        site.build(tmp_path / "site", {"README.md": page})


def test_a_link_to_the_source_becomes_its_name_and_code_stays():
    text = "[the validator](../shared/tokenry/wsgi.py) [page](b.md#c)\n\n```\n[x](../nowhere.py)\n```\n"
    made = site.without_source_links(text, place="docs/a.md", known=frozenset({"docs/b.md"}))
    assert made == "`the validator` [page](b.md#c)\n\n```\n[x](../nowhere.py)\n```\n"
