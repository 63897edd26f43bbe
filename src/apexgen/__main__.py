"""`apexgen`, and `python -m apexgen`, is the command line."""

import sys


def main() -> None:
    """Run a command; ctrl-C while its modules are still read is told as later: in one line, exit code 130."""
    try:
        from apexgen.cli import main as run
    except KeyboardInterrupt:
        print("stopped before anything was begun", file=sys.stderr)
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
