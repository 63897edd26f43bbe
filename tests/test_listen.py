"""A port is had, or one line says what is in the way."""

import errno
import socket

import pytest

from apexgen.listen import listen


def test_a_port_is_had_once_and_the_way_out_is_told():
    with listen("127.0.0.1", 0, "write --port 0") as had:
        port = had.getsockname()[1]
        with pytest.raises(OSError, match=f"^--port {port}: it is taken; write --port 0 for a free one$"):
            listen("127.0.0.1", port, "write --port 0")


def test_a_host_that_is_not_this_machine_is_named():
    with pytest.raises(OSError, match=r"^--host 192\.0\.2\.1: .*write --host 127\.0\.0\.1"):  # of documentation alone
        listen("192.0.2.1", 0, "write --port 0")


def test_a_reserved_port_is_not_laid_to_the_host(monkeypatch):
    def refused(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")  # what the system tells all users but one

    monkeypatch.setattr(socket, "create_server", refused)
    with pytest.raises(OSError, match=r"^--port 80: it takes more rights; write --port 0 for a free one$"):
        listen("127.0.0.1", 80, "write --port 0")
