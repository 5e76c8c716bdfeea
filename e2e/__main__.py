"""`python -m e2e`: the console script of that name."""

from cli import e2e

if __name__ == "__main__":
    e2e()
