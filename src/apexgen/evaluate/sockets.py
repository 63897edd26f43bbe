"""The sockets of an httpx client, so that whoever waits on one can be told to stop.

To close a socket that another thread reads wakes nobody, and its number may be given to a new one, on which that
thread then waits; to shut it down ends the read at once, and the number stays taken.
"""

import socket
import threading
from contextlib import suppress
from typing import Any
from weakref import WeakSet

OPENED = ("connection.connect_tcp.complete", "connection.start_tls.complete")


class Sockets:
    """What a client's requests have opened; give `note` to each as its "trace" extension."""

    def __init__(self) -> None:
        self.shut = threading.Event()
        self._opened: WeakSet[socket.socket] = WeakSet()
        self._lock = threading.Lock()

    def note(self, event: str, info: dict[str, Any]) -> None:
        """Take in the socket of a connection that is made, which is of no use once all are shut."""
        if event in OPENED:
            with self._lock:
                self._opened.add(info["return_value"].get_extra_info("socket"))
            if self.shut.is_set():
                self.shut_down()

    def shut_down(self) -> None:
        """End every read and write under way, and all that come."""
        self.shut.set()
        with self._lock:
            for opened in self._opened:
                with suppress(OSError):  # the other side has gone
                    opened.shutdown(socket.SHUT_RDWR)
