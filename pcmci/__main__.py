"""`python -m pcmci`."""

from pcmci.cli import main

if __name__ == "__main__":
    main()
