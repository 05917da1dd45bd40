"""Where independent pieces of work run: today the cores of this machine."""
