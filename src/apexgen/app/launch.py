"""The page on a port of this machine: nothing is sent elsewhere, and its files go when it does."""

import os
import signal
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from apexgen.app.page import STYLE, build_page
from apexgen.app.studio import Studio
from apexgen.drawer import Model
from apexgen.interrupt import SIGNALS
from apexgen.listen import is_loopback, listen, written
from apexgen.progress import working
from apexgen.scenes.pipeline import FOLDER

QUIET = {"GRADIO_ANALYTICS_ENABLED": "False"}  # the hub's are silent since the process began
LONGEST_FILE = "1mb"  # of prompts


def run_app(
    model: Model, guidance: float, host: str, port: int | None, console: Console, tell: Callable[[str], None]
) -> None:
    """Show the page until SIGINT or SIGTERM asks the process to stop; a second one ends it at once.

    `tell` gets the address once the page is there; the console, what else there is to say.

    Raises OSError where it can't listen.
    """
    listen(host, port or 0, "leave --port out").close()  # gradio would try port after port for a host that is none
    stop = _noted()  # from before there is a folder to remove
    with tempfile.TemporaryDirectory(prefix="apexgen-app-") as folder:
        os.environ.update(QUIET | {"GRADIO_TEMP_DIR": folder})
        with working("making the page"):
            studio = Studio(model, guidance, Path(folder))
            studio.few(1).draw(["a"], [0])  # what the first drawing sets up is in nobody's latency
            page = build_page(studio, examples(model))
            _, address, _ = launch(page, host, port)
        tell(address)
        stop.wait()
        page.close(verbose=False)
    console.print("stopped; what was drawn is removed, save what was downloaded")


def _noted() -> threading.Event:
    """Set by the first signal."""
    stop = threading.Event()

    def note(*_: object) -> None:
        stop.set()
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)

    for number in SIGNALS:
        signal.signal(number, note)
    return stop


def launch(page: Any, host: str, port: int | None) -> tuple[Any, str, str]:
    """Serve a page and return at once: gradio's app, the local address, and no public one."""
    import gradio as gr
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    # On loopback a name that was made to lead here is refused, so that no page elsewhere is taken for this one.
    known = ["127.0.0.1", "localhost", written(host)] if is_loopback(written(host)) else ["*"]
    system = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "DejaVu Sans", "sans-serif")
    mono = ("ui-monospace", "DejaVu Sans Mono", "monospace")
    return page.launch(
        server_name=written(host),
        server_port=port,
        prevent_thread_lock=True,
        quiet=True,
        share=False,
        ssr_mode=False,
        mcp_server=False,
        enable_monitoring=False,
        run_history=False,
        footer_links=[],
        app_kwargs={"middleware": [Middleware(TrustedHostMiddleware, allowed_hosts=known)]},
        max_file_size=LONGEST_FILE,
        theme=gr.themes.Base(
            primary_hue="indigo", secondary_hue="indigo", neutral_hue="slate", font=system, font_mono=mono
        ),
        css_paths=STYLE,
    )


def examples(model: Model) -> list[str]:
    """Prompts to begin with: of the embedded model, held-out captions, one of each task."""
    from apexgen.scenes.prompts import draw_captions

    if model.files[0] != FOLDER:
        return []
    return [caption.text for caption in draw_captions(1, held_out=True, seed=3)][::-1]
