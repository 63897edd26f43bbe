"""The command line: its commands, and what their mistakes become."""

import sys
import warnings
from collections.abc import Sequence

import typer

from apexgen.backbones.quiet import silence_libraries
from apexgen.cli import data, evaluate, judged, models, report, serve, start, statistics, training  # noqa: F401
from apexgen.cli.app import MISTAKE, NO, STOPPED, WELL, app, console
from apexgen.cli.mistake import mistake
from apexgen.interrupt import Elsewhere, Stopped

JUDGING = ("scenes", "geneval", "dpg", "wise", "geneval2", "mjhq", "fid", "clip", "diversity", "sweep")
RESUMING = ("demo", "train", "compare", "encode", "synthesize", "scenes build")
PLACES = ("--out", "--folder", "--cache")  # options of what is written
GOING_ON = {*RESUMING, *(f"evaluate {name}" for name in JUDGING)}  # commands that go on from what was saved


def main() -> None:
    """Run a command; it exits with a code of cli/app.py, and a mistake or a warning is one line on standard error."""
    warnings.formatwarning = lambda message, *_: f"warning: {message}\n"
    console.stderr = False
    silence_libraries()
    try:
        _refuse_empty(sys.argv[1:])
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
        if not hasattr(error, "format_message"):  # as typer's own errors have: an unknown option, a missing argument
            raise
        code = _say(mistake(error, sys.argv[1:]), MISTAKE)
    if code == STOPPED:
        after = "goes on from it" if _goes_on(sys.argv[1:]) else "begins anew"
        _say(f"stopped; what was saved, if anything, is whole, and the same command {after}", STOPPED)
    if code:
        sys.exit(code)


def _refuse_empty(words: Sequence[str]) -> None:
    """ValueError where an empty word, as a shell's variable may be, is a place to write to: that is the folder here."""
    for word, after in zip(words, [*words[1:], None], strict=False):
        option = word.removesuffix("=")
        if option in PLACES and (word != option or after == ""):
            raise ValueError(f"{option}: an empty path; write {option} PATH, or {option} . for the folder here")


def _goes_on(words: Sequence[str]) -> bool:
    """Whether a command finds again what it had done."""
    if words[:1] == ["sample"]:  # into a folder; a grid is drawn whole
        outs = [out for word, out in zip(words, [*words[1:], ""], strict=True) if word == "--out"]
        outs += [word.removeprefix("--out=") for word in words if word.startswith("--out=")]
        return bool(outs) and not outs[-1].endswith(".png")
    return " ".join(words[: 2 if words[:1] in (["evaluate"], ["scenes"]) else 1]) in GOING_ON


def _say(line: str, code: int) -> int:
    print(line, file=sys.stderr)
    return code
