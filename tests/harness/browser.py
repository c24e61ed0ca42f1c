"""A headless Chromium, driven as a person would: clicks at places, keys, and what is then on the page.

    Browser --DevTools protocol, JSON and a NUL byte, over two pipes--> Chromium
      |- page(width)   a tab of that width: Page.open, click, press, type, wait, evaluate, size

Waiting is for a condition in the page, with a generous limit. What the page logs as an error, or throws, is in
``Page.errors``.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Self

import pytest

PROGRAM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
PATIENCE_SECONDS = 60.0
_FLAGS = (
    "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-sync "
    "--disable-component-update --disable-dev-shm-usage --hide-scrollbars --remote-debugging-pipe"
).split()
_KEYS = {
    "Enter": (13, "\r"),
    "Escape": (27, ""),
    "Tab": (9, ""),
    "End": (35, ""),
    "Home": (36, ""),
    "ArrowLeft": (37, ""),
    "ArrowUp": (38, ""),
    "ArrowRight": (39, ""),
    "ArrowDown": (40, ""),
    " ": (32, " "),
    "/": (191, "/"),
}

needs_browser = pytest.mark.skipif(PROGRAM is None, reason="no Chromium on PATH")


class Browser:
    """One process, and its files, which go when it ends. A context manager."""

    def __init__(self) -> None:
        assert PROGRAM is not None
        self._files = tempfile.mkdtemp(prefix="kvstore-browser-")
        ours_in, theirs_out = os.pipe()
        theirs_in, ours_out = os.pipe()
        self._in, self._out = ours_in, ours_out
        # The program reads commands from descriptor 3 and writes to 4; a shell puts them there.
        command = f'exec "$0" "$@" 3<&{theirs_in} 4>&{theirs_out}'
        self._process = subprocess.Popen(
            [
                "bash",
                "-c",
                command,
                PROGRAM,
                *_FLAGS,
                f"--user-data-dir={self._files}/profile",
                "about:blank",
            ],
            env=os.environ | {"TMPDIR": self._files},
            start_new_session=True,
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._unread = b""
        self._number = 0
        self._pages: dict[str, Page] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._out)  # it ends when nobody can tell it anything any more, but not always
        self._process.terminate()
        try:
            self._process.wait(PATIENCE_SECONDS / 10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._in)
        self._remove()

    def _remove(self) -> None:
        """Remove its files, when no helper of it is left that would write more."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        end = time.monotonic() + PATIENCE_SECONDS
        while os.path.exists(self._files) and time.monotonic() < end:
            shutil.rmtree(self._files, ignore_errors=True)

    def page(self, width: int = 1200, height: int = 900) -> Page:
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = self._pages[session] = Page(self, session)
        page.send("Page.enable")
        page.send("Runtime.enable")
        page.send("Log.enable")
        page.resize(width, height)
        return page

    def send(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Have something done, and give its result."""
        self._number += 1
        command: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if session is not None:
            command["sessionId"] = session
        left = json.dumps(command).encode() + b"\0"
        while left:
            left = left[os.write(self._out, left) :]
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                result: dict[str, Any] = answer["result"]
                return result
            if answer.get("sessionId") in self._pages:
                self._pages[answer["sessionId"]].told(answer["method"], answer["params"])

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._unread:
            ready, _, _ = select.select([self._in], [], [], PATIENCE_SECONDS)
            assert ready, "the browser does not answer"
            data = os.read(self._in, 1 << 20)
            assert data, "the browser has ended"
            self._unread += data
        message, _, self._unread = self._unread.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found


class Page:
    """One tab."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser = browser
        self._session = session
        self.errors: list[str] = []

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self._browser.send(method, self._session, **parameters)

    def told(self, method: str, parameters: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            details = parameters["exceptionDetails"]
            self.errors.append(str(details.get("exception", {}).get("description", details["text"])))
        elif method == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            entry = parameters["entry"]
            self.errors.append(f"{entry['text']} {entry.get('url', '')}")

    def resize(self, width: int, height: int = 900) -> None:
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )

    def open(self, address: str) -> None:
        """Go there, and wait until the page says that it is ready."""
        self.send("Page.navigate", url="about:blank")
        self.wait("location.href === 'about:blank'")
        self.send("Page.navigate", url=address)
        self.wait(
            "location.href !== 'about:blank' && document.body && document.body.dataset.ready === 'true'"
        )

    def evaluate(self, expression: str) -> Any:
        """The value of an expression of JavaScript; of a promise, what it comes to."""
        found = self.send(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True, userGesture=True
        )
        assert "exceptionDetails" not in found, f"{expression}: {found['exceptionDetails']}"
        return found["result"].get("value")

    def wait(self, condition: str) -> None:
        """Until an expression is true."""
        self.until(lambda: self._holds(condition), condition)

    def until(self, holds: Callable[[], bool], what: str = "") -> None:
        """Until something is so, while the page goes on."""
        end = time.monotonic() + PATIENCE_SECONDS
        while not holds():
            assert time.monotonic() < end, f"never came true: {what}; errors: {self.errors}"
            self._holds("true")  # what the page has told is taken with an answer
            time.sleep(0.02)

    def _holds(self, condition: str) -> bool:
        found = self.send("Runtime.evaluate", expression=f"Boolean({condition})", returnByValue=True)
        return "exceptionDetails" not in found and bool(found["result"]["value"])

    def text(self, selector: str) -> str:
        return str(self.evaluate(f"document.querySelector({json.dumps(selector)}).textContent"))

    def texts(self, selector: str) -> list[str]:
        found: list[str] = self.evaluate(
            f"[...document.querySelectorAll({json.dumps(selector)})].map((each) => each.textContent)"
        )
        return found

    def click(self, selector: str, text: str | None = None) -> None:
        """Press the mouse on an element: the first that matches, and has exactly this text."""
        named = "" if text is None else f".filter((each) => each.textContent === {json.dumps(text)})"
        find = f"[...document.querySelectorAll({json.dumps(selector)})]{named}[0]"
        self.wait(find)
        at = self.evaluate(
            f"(() => {{ const it = {find}; it.scrollIntoView({{block: 'center'}}); "
            "const box = it.getBoundingClientRect(); "
            "return [box.x + Math.min(box.width, innerWidth) / 2, box.y + box.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=at[0], y=at[1], button="left", clickCount=1)

    def press(self, *keys: str) -> None:
        for key in keys:
            code, text = _KEYS[key]
            self.send(
                "Input.dispatchKeyEvent",
                type="keyDown" if text else "rawKeyDown",
                key=key,
                windowsVirtualKeyCode=code,
                text=text,
            )
            self.send("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)

    def type(self, text: str) -> None:
        """Into what has the focus."""
        self.send("Input.insertText", text=text)

    @property
    def overflow(self) -> int:
        """By how many pixels the page is wider than its window."""
        found: int = self.evaluate("document.documentElement.scrollWidth - innerWidth")
        return found
