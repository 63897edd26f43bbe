"""A port to listen on, or what is in the way of it."""

import errno
import socket


def listen(host: str, port: int, free: str) -> socket.socket:
    """A socket that listens there; port 0 is any free one.

    Raises OSError where it can't: for a port that is taken or reserved with the words `free`, which say how to have
    a free one.
    """
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise OSError(f"--port {port}: it is taken; {free} for a free one") from None
        if error.errno == errno.EACCES:
            raise OSError(f"--port {port}: it takes more rights; {free} for a free one") from None
        where = f"--host {host}" + (f" --port {port}" if port else "")
        raise OSError(f"{where}: {error.strerror}; write --host 127.0.0.1 for this machine alone") from None
