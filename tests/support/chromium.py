"""
A real headless Chromium, driven over WebDriver's plain HTTP.

The browser is that of the machine, else Debian's packages `chromium` and `chromium-driver` with what they need,
unpacked into the cache: nothing is installed, and no rights are needed.
"""

import base64
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

from tests.support.cassandra import cache_directory
from tests.support.debian import NoPackage
from tests.support.processes import Processes, free_port

PACKAGES = ("chromium", "chromium-driver", "fonts-dejavu-core")
FLAGS = (
    "--headless",
    "--no-sandbox",  # as root in a container there is none to be had
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
)
ANSWER_SECONDS = 120  # a first page of a cold browser on a busy machine
STALE_TRIES = 20
MAX_PICTURE = 6000  # CSS pixels of a page that a picture shows
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the name of a reference in the W3C recommendation

_open = build_opener(ProxyHandler({})).open  # no proxy of the environment stands before loopback


@dataclass(frozen=True, kw_only=True)
class Programs:
    """Where browser and driver are, and what of the environment they need."""

    browser: Path
    driver: Path
    environment: Mapping[str, str]


def programs() -> Programs:
    """
    Return browser and driver: of the machine, or unpacked from Debian's packages.

    Raises:
        NoPackage: There are none, and they could not be fetched.
    """
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if browser and driver:
        return Programs(browser=Path(browser), driver=Path(driver), environment={})
    root = cache_directory().parent / "debian" / "chromium-and-driver"
    if not (root / "complete").exists():
        _unpack(root)
    folders = {each.parent for each in root.glob("**/lib/**/*.so*") if "chromium" not in each.parts}
    libraries = ":".join(map(str, sorted(folders)))
    return Programs(
        browser=root / "usr/lib/chromium/chromium",
        driver=root / "usr/bin/chromedriver",
        environment={"LD_LIBRARY_PATH": libraries, "FONTCONFIG_FILE": str(root / "fonts.conf")},
    )


def _unpack(root: Path) -> None:
    """Fetch what apt would install, and unpack it into *root*."""
    shutil.rmtree(root, ignore_errors=True)
    archives = root / "archives"
    archives.mkdir(parents=True)
    lists = root.parent / "lists"
    (lists / "partial").mkdir(parents=True, exist_ok=True)
    own = ["-o", f"Dir::State::lists={lists}", "-o", f"Dir::Cache={root.parent / 'archives'}"]
    try:
        try:
            wanted = _wanted()
            _run("apt-get", "download", *wanted, cwd=archives)
        except subprocess.SubprocessError:
            _run("apt-get", *own, "update", cwd=archives)
            wanted = _wanted(*own)
            _run("apt-get", *own, "download", *wanted, cwd=archives)
        for archive in archives.glob("*.deb"):
            _run("dpkg", "-x", str(archive), str(root), cwd=root)
    except (OSError, subprocess.SubprocessError) as error:
        shutil.rmtree(root, ignore_errors=True)
        raise NoPackage(f"install Debian's packages {', '.join(PACKAGES)}: they could not be fetched ({error})") from (
            error
        )
    shutil.rmtree(archives)
    (root / "fonts.conf").write_text(
        f'<?xml version="1.0"?>\n<fontconfig><dir>{root}/usr/share/fonts</dir><dir>/usr/share/fonts</dir>'
        f"<cachedir>{root}/fonts-cache</cachedir></fontconfig>\n"
    )
    (root / "complete").touch()


def _wanted(*options: str) -> list[str]:
    """Return the packages that apt would install."""
    command = ["apt-get", *options, "--simulate", "--no-install-recommends", "install", *PACKAGES]
    simulated = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout
    names = re.findall(r"(?m)^Inst (\S+)", simulated)
    return sorted({*names, *PACKAGES})


def _run(*command: str, cwd: Path) -> None:
    subprocess.run(command, cwd=cwd, check=True, capture_output=True, timeout=600)


class WebDriverError(Exception):
    """The driver refused a command; the text has its words."""


class StaleElement(WebDriverError):
    """The element is of a page, or of a part of one, that has gone."""


class Browser:
    """One window of one browser with a profile of its own."""

    def __init__(
        self,
        processes: Processes,
        folder: Path,
        *,
        javascript: bool = True,
        dark: bool = False,
        width: int = 1440,
        height: int = 900,
    ) -> None:
        found = programs()
        port = free_port()
        profile, home = folder / "profile", folder / "home"
        home.mkdir(parents=True)
        # Crash reports and caches go below the folder as well.
        environment = {
            **found.environment,
            "HOME": str(home),
            "XDG_CONFIG_HOME": str(home),
            "XDG_CACHE_HOME": str(home),
        }
        self._process = processes.start(
            f"chromedriver-{port}",
            [found.driver, f"--port={port}", "--allowed-ips=127.0.0.1"],
            env=environment,
            ready_url=f"http://127.0.0.1:{port}/status",
            seconds=60,
        )
        self._base = f"http://127.0.0.1:{port}/session"
        arguments = [*FLAGS, f"--user-data-dir={profile}", f"--window-size={width},{height}"]
        if dark:
            arguments += ["--force-dark-mode"]
        options: dict[str, Any] = {"binary": str(found.browser), "args": arguments}
        if not javascript:
            options["prefs"] = {"profile.managed_default_content_settings.javascript": 2}
        always = {
            "browserName": "chrome",
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL"},
        }
        answer = self._call("POST", "", {"capabilities": {"alwaysMatch": always}})
        self._base += f"/{answer['sessionId']}"
        # The pictures of tests are compared by people: one scheme, whatever the machine prefers.
        self.devtools(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}],
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._call("DELETE", "")
        self._process.terminate()

    # --- commands ---

    def open(self, url: str) -> None:
        """Go to *url* and return when it has loaded."""
        self._call("POST", "/url", {"url": url})

    @property
    def url(self) -> str:
        """Where it is."""
        return str(self._call("GET", "/url"))

    @property
    def source(self) -> str:
        """The page as it stands now, as HTML."""
        return str(self._call("GET", "/source"))

    def run(self, script: str, *arguments: object) -> Any:
        """Return what *script* returns."""
        return self._call("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def find(self, selector: str) -> str:
        """Return the element that the CSS *selector* fits first."""
        found = self._call("POST", "/element", {"using": "css selector", "value": selector})
        return str(found[ELEMENT])

    def count(self, selector: str) -> int:
        """Return how many elements the CSS *selector* fits."""
        return len(self._call("POST", "/elements", {"using": "css selector", "value": selector}))

    def text(self, selector: str = "body") -> str:
        """Return the text that a reader sees in the element."""
        for _ in range(STALE_TRIES):
            with suppress(StaleElement):  # the page has refreshed a part of itself meanwhile
                return str(self._call("GET", f"/element/{self.find(selector)}/text"))
        raise WebDriverError(f"{selector} is replaced all the time")

    def type(self, selector: str, text: str) -> None:
        """Replace what is in a field by typing *text*."""
        element = self.find(selector)
        self._call("POST", f"/element/{element}/clear", {})
        self._call("POST", f"/element/{element}/value", {"text": text})

    def click(self, selector: str) -> None:
        """Click the element."""
        self._call("POST", f"/element/{self.find(selector)}/click", {})

    def follow(self, selector: str) -> None:
        """Click what leads to another page, and return when that has taken the place of this one."""
        before = self.find("html")
        self.click(selector)
        end = time.monotonic() + ANSWER_SECONDS
        while True:
            try:
                self._call("GET", f"/element/{before}/name")
            except StaleElement:
                break  # it is of a page that has gone
            assert time.monotonic() < end, f"{selector} led nowhere: {self.url}"
            time.sleep(0.02)
        self.find("body")

    def cookies(self) -> list[dict[str, Any]]:
        """Return the cookies of the page's site."""
        found: list[dict[str, Any]] = self._call("GET", "/cookie")
        return found

    def log(self) -> list[str]:
        """Return what the browser's console has said since the last call."""
        entries = self._call("POST", "/se/log", {"type": "browser"})
        return [f"{entry['level']} {entry['source']}: {entry['message']}" for entry in entries]

    def devtools(self, command: str, **parameters: object) -> Any:
        """Run a command of the DevTools protocol."""
        return self._call("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def resize(self, width: int, height: int) -> None:
        """Give the page this many CSS pixels, as narrow as no window would go."""
        self.devtools(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )

    def scheme(self, name: str) -> None:
        """Prefer the colour scheme *name*: light or dark."""
        self.devtools("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    def screenshot(self, path: Path) -> None:
        """Write a picture of the whole page to *path*."""
        path.parent.mkdir(parents=True, exist_ok=True)
        size = self.devtools("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], MAX_PICTURE), "scale": 1}
        shot = self.devtools("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(shot["data"]))

    def wait(self, holds: Callable[[], object], *, seconds: float, what: str = "") -> None:
        """
        Return once *holds* returns something true.

        Raises:
            AssertionError: It did not within *seconds*.
        """
        end = time.monotonic() + seconds
        while True:
            try:
                if holds():
                    return
            except WebDriverError:
                pass  # the page is between two states
            assert time.monotonic() < end, f"{what or 'it'} did not come about: {self.url}\n{self.text()[:3000]}"
            time.sleep(0.1)

    def _call(self, method: str, path: str, body: object = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = Request(self._base + path, data=data, method=method, headers={"Content-Type": "application/json"})  # noqa: S310
        try:
            with _open(request, timeout=ANSWER_SECONDS) as answer:
                return json.load(answer)["value"]
        except HTTPError as error:
            said = error.read().decode(errors="replace")[:2000]
            raise (StaleElement if any(words in said for words in _GONE) else WebDriverError)(said) from None


# The driver's own words for an element of a page that has gone, and the browser's, in the moment of the change.
_GONE = ("stale element", "does not belong to the document")


__all__ = ["FLAGS", "Browser", "NoPackage", "Programs", "StaleElement", "WebDriverError", "programs"]

if __name__ == "__main__":  # fetch it beforehand
    print(programs(), os.linesep, end="")  # noqa: T201
