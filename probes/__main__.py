"""`python -m probes`: the console script of that name."""

from cli import probes

if __name__ == "__main__":
    probes()
