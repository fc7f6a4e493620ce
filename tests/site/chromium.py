"""A real Chromium without a window, driven over two pipes by its DevTools protocol: no port, no host, no library.

with Chromium(folder) as browser:
    browser.open(page, width=390, height=844)
    browser.value("document.title")
"""

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import time
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars", "--remote-debugging-pipe",
)  # fmt: skip
KEYS = {
    "Tab": 9, "Enter": 13, "Escape": 27, "End": 35, "Home": 36, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40,
}  # fmt: skip
_ASKED = 6000  # answers in which something may become true: a busy machine gives them more slowly


def find() -> str | None:
    """The browser's program, or None where there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class ProtocolError(Exception):
    """The browser could not do what it was told."""


class Chromium:
    """One browser with one page; a context manager. `profile` is an empty folder for what it keeps."""

    def __init__(self, profile: Path, program: str | None = None):
        self._number, self._buffer, self.events = 0, b"", []
        command = [program or str(find()), *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        self._process, self._in, self._out = _start(command)
        self._session, self._ended = None, False
        target = next(one for one in self._call("Target.getTargets")["targetInfos"] if one["type"] == "page")
        self._session = self._call("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self._call(f"{domain}.enable")

    def __enter__(self) -> "Chromium":
        return self

    def __exit__(self, error: Any, *_: Any) -> None:
        if self._alive():
            os.kill(self._process, signal.SIGTERM if error is None else signal.SIGKILL)
            os.waitpid(self._process, 0)
        os.close(self._in)
        os.close(self._out)

    def open(self, page: Path | str, *, width: int = 1440, height: int = 900, phone: bool = False, dark: bool = False) -> None:
        """Opens a page (a file, or one with a #fragment) in a window of that size, and waits until it is loaded."""
        address = page.resolve().as_uri() if isinstance(page, Path) else page
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)
        self._call("Emulation.setTouchEmulationEnabled", enabled=phone)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[scheme])
        self._call("Page.navigate", url="about:blank")
        self.events.clear()
        self._call("Page.navigate", url=address)
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def value(self, expression: str) -> Any:
        """The value of a JavaScript expression on the page. Raises AssertionError when it throws."""
        found = self._call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, expression: str) -> None:
        """Waits until an expression is true; a page that is just being left has no value for it."""
        for _ in range(_ASKED):
            with contextlib.suppress(ProtocolError):
                if self.value(expression):
                    return
            time.sleep(0.02)
        raise AssertionError(f"never true: {expression}")

    def press(self, key: str) -> None:
        """Presses a key as a person does: a name of `KEYS`, or a character."""
        about = {"key": key, "code": key, "windowsVirtualKeyCode": KEYS.get(key, 0)}
        text = {"Enter": "\r"}.get(key, key if len(key) == 1 else None)
        self._call("Input.dispatchKeyEvent", type="keyDown", **about, **({"text": text} if text else {}))
        self._call("Input.dispatchKeyEvent", type="keyUp", **about)

    def type(self, text: str) -> None:
        """Types a text into what has the focus."""
        for character in text:
            self.press(character)

    def click(self, selector: str) -> None:
        """Clicks in the middle of the first element that matches."""
        self.value(f"document.querySelector({selector!r}).scrollIntoView({{block: 'center', behavior: 'instant'}})")
        box = f"document.querySelector({selector!r}).getBoundingClientRect()"
        place = self.value(f"[{box}.x + {box}.width / 2, {box}.y + {box}.height / 2]")
        for kind in ("mousePressed", "mouseReleased"):
            self._call("Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], button="left", clickCount=1)

    def screenshot(self, path: Path) -> None:
        """Writes what the window shows as PNG."""
        path.write_bytes(base64.b64decode(self._call("Page.captureScreenshot", format="png")["data"]))

    def problems(self) -> list[str]:
        """What the page complained of, and what it asked of anywhere but its own disk, since it was opened."""
        found = []
        for event in self.events:
            method, about = event["method"], event["params"]
            if method == "Network.requestWillBeSent" and not about["request"]["url"].startswith(("file:", "data:", "about:")):
                found.append(about["request"]["url"])
            if method == "Runtime.exceptionThrown":
                found.append(str(about["exceptionDetails"]))
            if method == "Log.entryAdded" and about["entry"]["level"] == "error":
                found.append(f"{about['entry']['text']} {about['entry'].get('url', '')}")
        return found

    def _alive(self) -> bool:
        """Whether the browser runs; once it has ended this stays false."""
        self._ended = self._ended or os.waitpid(self._process, os.WNOHANG)[0] == self._process
        return not self._ended

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise ProtocolError(f"{method}: {answer['error']}")
                return answer["result"]
            if "method" in answer:
                self.events.append(answer)

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            if not select.select([self._in], [], [], 1.0)[0]:
                assert self._alive(), "the browser ended"
                continue
            more = os.read(self._in, 1 << 20)
            assert more, "the browser ended"
            self._buffer += more
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)


def _start(command: list[str]) -> tuple[int, int, int]:
    """Starts the browser, which reads from descriptor 3 and writes to 4; returns its process and our ends of the pipes."""
    ours_in, theirs_out = os.pipe()
    theirs_in, ours_out = os.pipe()
    high = [fcntl.fcntl(one, fcntl.F_DUPFD_CLOEXEC, 10) for one in (theirs_in, theirs_out)]  # out of the way of 3 and 4
    actions = [(os.POSIX_SPAWN_DUP2, high[0], 3), (os.POSIX_SPAWN_DUP2, high[1], 4)]
    actions += [(os.POSIX_SPAWN_OPEN, one, os.devnull, os.O_WRONLY, 0) for one in (1, 2)]
    try:
        return os.posix_spawn(command[0], command, os.environ, file_actions=actions), ours_in, ours_out
    finally:
        for one in (theirs_in, theirs_out, *high):
            os.close(one)
