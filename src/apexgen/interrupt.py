"""SIGINT and SIGTERM: the first asks a run to stop between two steps, a second one stops it at once."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
SHOW_CURSOR = b"\x1b[?25h"  # a progress bar hides it, and a process stopped at once can't show it again


class Stopped(Exception):
    """A run was asked to stop, and did so with everything saved."""


class Elsewhere(Exception):
    """Another process could not go on, and says why."""


@contextmanager
def noted_signals(after: str = "this step") -> Iterator[Callable[[], bool]]:
    """Inside, the first signal is only noted, and what is yielded then returns True; the next one ends the process.

    after: what is still done, in words. Off the main thread, where Python can't set handlers, nothing is noted.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    noted = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal noted
        noted = True
        for each in SIGNALS:  # the system's own: an exception could be lost in whatever is running
            signal.signal(each, signal.SIG_DFL)
        line = f"\nstopping after {after}; a second signal stops at once\n".encode()
        os.write(2, SHOW_CURSOR + line if os.isatty(2) else line)

    before = {number: signal.signal(number, note) for number in SIGNALS}
    try:
        yield lambda: noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
