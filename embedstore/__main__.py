"""`python -m embedstore`: the console script of that name."""

from cli import embedstore

if __name__ == "__main__":
    embedstore()
