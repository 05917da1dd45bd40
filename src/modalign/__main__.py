"""`python -m modalign` is the command `modalign`."""

from modalign.cli.main import run

if __name__ == "__main__":
    run()
