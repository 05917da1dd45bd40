"""`python -m modalign_serve` is the command `modalign-serve`."""

from modalign_serve.command.main import run

if __name__ == "__main__":
    run()
