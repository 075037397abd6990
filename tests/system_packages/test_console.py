"""
The console in a real headless Chromium, before running services: what people do in an incident, and what they see.

Pictures of every page, light and dark, wide and narrow, are left in build/screenshots for people to look at.
"""

import re
from pathlib import Path

import pytest

from tests.support.chromium import Browser, programs
from tests.support.http import call
from tests.support.platform import Deployment
from tests.support.processes import Processes, free_port

pytestmark = [pytest.mark.system_packages, pytest.mark.processes]

SHOTS = Path(__file__).parents[2] / "build/screenshots"
PAGES = {
    "overview": "/", "revocations": "/revocations", "propagation": "/propagation",
    "validators": "/validators",
    "keys": "/keys", "clients": "/clients", "client": "/clients/services/demo",
    "audit": "/audit", "inspect": "/inspect",
}  # fmt: skip
VALIDATORS = ("orders-1", "orders-2", "orders-3")


class Platform:
    """
    The services, three further token infos, the administration, and the console.

    Attributes:
        url: Where the console is.
        console: Its process.
        validators: The processes of the three.
    """

    def __init__(self, folder):
        self.processes = Processes(folder / "processes")
        self.deployment = Deployment(folder, self.processes)
        self.deployment.use_folder()
        self.deployment.use_sqlite()
        self.deployment._extra["revocation"]["TOKENRY_OPEN_REPORTS"] = "true"
        self.deployment.start()
        self.validators = {name: self._validator(name) for name in VALIDATORS}
        admin, port = f"http://127.0.0.1:{free_port()}", free_port()
        applications = folder / "applications"
        applications.mkdir()
        services = {name: self.deployment.url(name, "") for name in ("issuer", "revocation", "tokeninfo")}
        self.processes.start(
            "admin",
            [self.deployment.python, "-m", "tokenry_admin"],
            env={
                "TOKENRY_ISSUER": services["issuer"],
                "TOKENRY_REVOCATION_URL": services["revocation"],
                "TOKENRY_CREDENTIALS_URL": self.deployment._extra["issuer"]["TOKENRY_CREDENTIALS_URL"],
                "TOKENRY_ENVELOPE_KEY_FILE": str(self.deployment._folder.envelope_key),
                "TOKENRY_APPLICATION_FILES": applications.as_uri() + "/",
                "TOKENRY_ISSUER_METRICS_URLS": services["issuer"],
                "TOKENRY_LISTEN_ADDRESS": admin.removeprefix("http://"),
                "TOKENRY_ENVIRONMENT": "dev",
            },
            ready_url=admin + "/readyz",
            seconds=60,
        )
        self.url = f"http://127.0.0.1:{port}"
        self.console = self.processes.start(
            "console",
            [self.deployment.python, "-m", "tokenry_console"],
            env={
                "TOKENRY_ISSUER": services["issuer"],
                "TOKENRY_REVOCATION_URL": services["revocation"],
                "TOKENRY_TOKENINFO_URL": services["tokeninfo"],
                "TOKENRY_CONSOLE_ADMIN_URL": admin,
                "TOKENRY_CONSOLE_SCRAPE_INTERVAL": "1s",
                "TOKENRY_LISTEN_ADDRESS": self.url.removeprefix("http://"),
                "TOKENRY_ENVIRONMENT": "staging",
            },
            ready_url=self.url + "/readyz",
            seconds=60,
        )

    def _validator(self, name):
        port = free_port()
        environment = self.deployment._environment("tokeninfo") | {
            "TOKENRY_INSTANCE": name,
            "TOKENRY_LISTEN_ADDRESS": f"127.0.0.1:{port}",
        }
        return self.processes.start(
            name,
            [self.deployment.python, "-m", "tokenry_tokeninfo"],
            env=environment,
            ready_url=f"http://127.0.0.1:{port}/readyz",
            seconds=60,
        )

    def traffic(self):
        """Issue, validate and refuse a little, so that there is something to draw."""
        for _ in range(5):
            token = self.deployment.token()
            for each in (token, token, token + "x"):
                self.deployment.tokeninfo(each)
        call("POST", self.deployment.url("issuer", "/oauth2/token"), form={"grant_type": "client_credentials"},
             basic=("demo", "wrong"))  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def chromium():
    """Fetched once; without it these tests fail, and say what to install."""
    return programs()


@pytest.fixture(scope="module")
def platform(tmp_path_factory):
    made = Platform(tmp_path_factory.mktemp("console"))
    try:
        yield made
    finally:
        made.processes.end()


@pytest.fixture
def processes_of_browsers(tmp_path):
    running = Processes(tmp_path / "browsers")
    yield running
    running.end()


def log_in(browser, platform):
    browser.open(platform.url)
    browser.type("#token", platform.deployment.admin_token())
    browser.follow("button.primary")
    assert "Log out" in browser.text("header")


def reached(browser):
    """How many validators enforce it, of how many: four token infos, the issuer and the administration."""
    return tuple(map(int, re.search(r"(\d+)\s*of (\d+)", browser.text(".headline")).groups()))


def complaints(browser):
    """What the browser's console has against the pages: errors, and what the policy forbids."""
    return [line for line in browser.log() if not line.startswith(("INFO", "DEBUG"))]


def test_an_incident_from_login_to_enforced_everywhere(platform, processes_of_browsers, tmp_path):
    with Browser(processes_of_browsers, tmp_path) as browser:
        browser.resize(1440, 900)
        # 1. log in: the token is nowhere but in the console's memory
        log_in(browser, platform)
        platform.traffic()
        (cookie,) = [each for each in browser.cookies() if each["name"] == "tokenry-console"]
        assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
        assert browser.run("return document.cookie") == ""
        # 2. see the validators
        browser.open(platform.url + "/validators")
        browser.wait(lambda: all(name in browser.text() for name in VALIDATORS), seconds=60, what="the validators")
        assert browser.count("#plot-freshness svg rect") >= 4
        # 3. one of them stands still, and somebody leaks a token
        platform.validators["orders-3"].pause()
        leaked = platform.deployment.token()
        browser.open(platform.url + "/revocations")
        browser.type("[name=value0]", "demo")
        browser.type("[name=reason]", "leak")
        browser.type("[name=ticket]", "SEC-481")
        browser.follow("#new button.primary")
        assert "Would revoke sub = demo" in browser.text("#preview")
        assert platform.deployment.tokeninfo(leaked) == 200  # nothing is revoked yet
        browser.screenshot(SHOTS / "preview-light-1440.png")
        browser.type("#preview [name=typed]", "demo")
        browser.follow("#preview .danger")
        # 4. the curve fills by itself, but for the one that stands still
        browser.wait(lambda: "/propagation?id=" in browser.url, seconds=20)
        browser.wait(lambda: reached(browser) == (5, 6), seconds=60, what="five of six")
        assert "orders-3" in browser.text("#propagation table.rows")
        assert "enforced everywhere" not in browser.text()
        assert "takes JavaScript" not in browser.text()  # also after the page has refreshed itself
        browser.wait(lambda: browser.count("#plot-curve canvas") == 1, seconds=10, what="the curve")
        browser.screenshot(SHOTS / "propagation-waiting-light-1440.png")
        assert platform.deployment.tokeninfo(leaked) == 401
        platform.validators["orders-3"].resume()
        browser.wait(lambda: "enforced everywhere" in browser.text(".headline"), seconds=90, what="all of them")
        browser.screenshot(SHOTS / "propagation-enforced-light-1440.png")
        # 5. the chain of who did what is whole
        browser.open(platform.url + "/audit")
        assert "SEC-481" in browser.text("table.rows")
        browser.follow("form[action='/audit/verify'] button")
        assert "The chain holds" in browser.text()
        # 6. and a mistake can be taken back
        browser.open(platform.url + "/revocations")
        browser.follow("table.rows tbody a")
        browser.type("[name=typed]", "undo")
        browser.follow("button.danger")
        assert "Taken back" in browser.text()
        assert complaints(browser) == []


def test_every_page_is_readable_wide_and_narrow_light_and_dark(platform, processes_of_browsers, tmp_path):
    platform.traffic()
    with Browser(processes_of_browsers, tmp_path) as browser:
        log_in(browser, platform)
        grounds = {}
        for name, path in PAGES.items():
            for scheme in ("light", "dark"):
                browser.scheme(scheme)
                for width in (1440, 360):
                    browser.resize(width, 900)
                    browser.open(platform.url + path)
                    assert browser.count('[aria-current="page"]') == 1
                    for place in range(browser.count("[data-plot]")):
                        plots = "return document.querySelectorAll('[data-plot]')"
                        drawn = f"{plots}[{place}].querySelectorAll('canvas').length"
                        browser.wait(lambda drawn=drawn: browser.run(drawn), seconds=10, what=f"a plot of {name}")
                    assert browser.run("return document.documentElement.scrollWidth") <= width, (name, width)
                    grounds[scheme] = browser.run("return getComputedStyle(document.body).backgroundColor")
                    browser.screenshot(SHOTS / f"{name}-{scheme}-{width}.png")
        assert grounds["light"] != grounds["dark"]
        assert complaints(browser) == []


def test_inspect_decodes_in_the_browser_and_sends_nothing_but_the_id(platform, processes_of_browsers, tmp_path):
    token = platform.deployment.token()
    with Browser(processes_of_browsers, tmp_path) as browser:
        log_in(browser, platform)
        browser.open(platform.url + "/inspect")
        before = browser.run("return performance.getEntriesByType('resource').length")
        browser.type("#pasted", token)
        assert "demo" in browser.text("#decoded-claims")
        assert "ES256" in browser.text("#decoded-header")
        assert "It expires in" in browser.text("#verdict")
        assert browser.run("return performance.getEntriesByType('resource').length") == before
        browser.screenshot(SHOTS / "inspect-decoded-light-1440.png")
        browser.follow("form[action='/inspect'] button")
        assert "is not revoked by its id" in browser.text()
        jti = browser.text("form[action='/inspect']") and browser.run("return document.getElementById('jti').value")
        assert platform.deployment.revoke_token(token).status == 201
        browser.follow("form[action='/inspect'] button")
        assert f"{jti} is revoked" in browser.text()
        assert complaints(browser) == []
    assert token not in platform.console.output()
    assert "listening" in platform.console.output()  # it is the log that was looked at


def test_plots_can_be_taken_along(platform, processes_of_browsers, tmp_path):
    with Browser(processes_of_browsers, tmp_path) as browser:
        browser.devtools("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path / "downloads"))
        log_in(browser, platform)
        for path, plot in (("/", "issuing"), ("/validators", "freshness")):
            browser.open(platform.url + path)
            browser.click(f"#twin-{plot} summary")
            browser.click(f"[data-png=plot-{plot}]")
            picture = tmp_path / "downloads" / f"tokenry-plot-{plot}.png"
            browser.wait(picture.exists, seconds=20, what=picture.name)
            assert picture.read_bytes().startswith(b"\x89PNG")
            browser.click(f"#twin-{plot} a[download]")
            browser.wait((tmp_path / "downloads" / f"tokenry-{plot}.csv").exists, seconds=20, what="the CSV")
        assert complaints(browser) == []


def test_everything_but_the_plots_works_without_javascript(platform, processes_of_browsers, tmp_path):
    with Browser(processes_of_browsers, tmp_path, javascript=False) as browser:
        browser.resize(1440, 900)
        log_in(browser, platform)
        for name, path in PAGES.items():
            browser.open(platform.url + path)
            assert browser.count("canvas") == 0  # so scripts are really off
            browser.screenshot(SHOTS / f"{name}-without-javascript.png")
        browser.open(platform.url + "/inspect")
        assert "tokenry token inspect -" in browser.text()
        assert browser.count("#decoder[hidden]") == 1
        browser.open(platform.url + "/")
        assert browser.count("#table-issuing tbody tr") > 0  # the plot as a table
        browser.open(platform.url + "/revocations")
        browser.click("[name=kind][value=jti]")
        browser.type("[name=jti]", "an-id-that-nobody-has")
        browser.follow("#new button.primary")
        browser.type("#preview [name=typed]", "one token")
        browser.follow("#preview .danger")
        assert "Stored: the token with the id an-id-that-nobody-has is revoked" in browser.text()
        browser.open(platform.url + "/inspect")
        browser.type("#jti", "an-id-that-nobody-has")
        browser.follow("form[action='/inspect'] button")
        assert "an-id-that-nobody-has is revoked" in browser.text()
        browser.follow("form.who button")
        assert "Log in" in browser.text()


def test_a_console_that_goes_away_is_seen_and_no_page_is_taken_for_fresh(platform, processes_of_browsers, tmp_path):
    with Browser(processes_of_browsers, tmp_path) as browser:
        log_in(browser, platform)
        browser.open(platform.url + "/validators")
        platform.console.pause()
        try:
            browser.wait(
                lambda: "does not answer" in browser.text("footer"), seconds=60, what="that the console is away"
            )
            browser.screenshot(SHOTS / "console-away-light-1440.png")
        finally:
            platform.console.resume()
        browser.wait(lambda: "refreshes every" in browser.text("footer"), seconds=60, what="that it is back")
