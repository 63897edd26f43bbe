"""`python -m apexgen` is the command line."""

from apexgen.cli import main

if __name__ == "__main__":
    main()
