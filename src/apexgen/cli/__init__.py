"""The command line: its commands, and what their mistakes become."""

import sys
import warnings

import typer

from apexgen.backbones.quiet import silence_libraries
from apexgen.cli import data, evaluate, judged, models, report, serve, start, statistics, training  # noqa: F401
from apexgen.cli.app import MISTAKE, NO, STOPPED, WELL, app, console
from apexgen.interrupt import Elsewhere, Stopped


def main() -> None:
    """Run a command; it exits with a code of cli/app.py, and a mistake or a warning is one line on standard error."""
    warnings.formatwarning = lambda message, *_: f"warning: {message}\n"
    console.stderr = False
    silence_libraries()
    try:
        code = app(prog_name="apexgen", standalone_mode=False) or 0  # the code of typer.Exit; 130 of ctrl-C
    except Stopped as stop:
        code = _say(str(stop), WELL)
    except (typer.Abort, KeyboardInterrupt):
        code = STOPPED
    except (ValueError, OSError) as error:
        code = _say(f"apexgen: {str(error).splitlines()[0]}", MISTAKE)
    except Elsewhere:
        code = NO
    except FloatingPointError as error:
        code = _say(f"apexgen: {error}", NO)
    except Exception as error:
        show = getattr(error, "show", None)  # click's own errors: an unknown option, a missing argument
        if show is None:
            raise
        show()
        code = MISTAKE
    if code == STOPPED:
        _say("stopped; what was saved is whole, and the same command goes on from it", STOPPED)
    if code:
        sys.exit(code)


def _say(line: str, code: int) -> int:
    print(line, file=sys.stderr)
    return code
