"""The command line: its commands, and what their mistakes become."""

import sys
import warnings

import typer

from apexgen.cli.app import app
from apexgen.cli.quiet import silence_imports
from apexgen.interrupt import Stopped
from apexgen.parallel import Elsewhere

# Each puts its commands on the app; help lists them in this order.
from apexgen.cli import training  # noqa: F401 # isort: skip
from apexgen.cli import data  # noqa: F401 # isort: skip
from apexgen.cli import models  # noqa: F401 # isort: skip
from apexgen.cli import evaluate  # noqa: F401 # isort: skip
from apexgen.cli import statistics  # noqa: F401 # isort: skip
from apexgen.cli import judged  # noqa: F401 # isort: skip
from apexgen.cli import serve  # noqa: F401 # isort: skip


def main() -> None:
    """Run a command: the user's mistakes are one line on standard error and exit code 2, warnings one line too."""
    warnings.formatwarning = lambda message, *_: f"warning: {message}\n"
    silence_imports()
    try:
        if code := app(standalone_mode=False):  # click hands back the code of typer.Exit
            sys.exit(code)
    except typer.Exit as stop:
        sys.exit(stop.exit_code)
    except Stopped as stop:
        print(stop, file=sys.stderr)
    except (typer.Abort, KeyboardInterrupt):
        print("stopped; the same command goes on from the last checkpoint", file=sys.stderr)
        sys.exit(130)
    except (ValueError, OSError) as error:
        print(f"apexgen: {str(error).splitlines()[0]}", file=sys.stderr)
        sys.exit(2)
    except Elsewhere:
        sys.exit(1)
    except FloatingPointError as error:
        print(f"apexgen: {error}", file=sys.stderr)
        sys.exit(1)
    except Exception as error:
        show = getattr(error, "show", None)  # click's own errors: an unknown option, a missing argument
        if show is None:
            raise
        show()
        sys.exit(2)
