"""Small servers of the tests' own, on loopback, that say nothing."""

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Quiet(BaseHTTPRequestHandler):
    """A handler whose log is no output."""

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 64  # with the default of 5, of eight that come at once some wait a second
    daemon_threads = True


@contextmanager
def listening(handler: type[BaseHTTPRequestHandler], host: str = "127.0.0.1"):
    """The address of a server of this kind, on a free port."""
    server = Server((host, 0), handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield f"http://{host}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
