"""A port to listen on, or what is in the way of it."""

import errno
import socket
from ipaddress import ip_address
from urllib.parse import urlsplit


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


def written(host: str) -> str:
    """A host as an address has it: a number of IPv6 in brackets."""
    return f"[{host}]" if ":" in host else host


def is_loopback(address: str) -> bool:
    """Whether an address, "HOST:PORT" with or without its scheme, names this machine and can name no other."""
    try:
        host = urlsplit(f"//{address.rpartition('//')[2]}").hostname or ""
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:  # a name, or no address at all
        return False
