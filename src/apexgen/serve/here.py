"""Who is answered on loopback: this machine, and no page that its browser shows from elsewhere."""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from apexgen.listen import is_loopback
from apexgen.serve.ask import Refusal


class OnlyHere:
    """An application that refuses what a page elsewhere has the browser here ask, as Host or Origin gives it away."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The application's answer, or 403: a name was made to lead here (Host), or the page is another's (Origin)."""
        answer, told = self.app, Headers(scope=scope) if scope["type"] == "http" else {}
        for name in ("Host", "Origin"):
            if not is_loopback(said := told.get(name, "localhost")):
                message = f"{name}: {said[:60]} is not this machine, which alone is served; write 127.0.0.1, or --host"
                answer = Refusal(403, message, "forbidden").answer()
        await answer(scope, receive, send)
