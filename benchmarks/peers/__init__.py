"""The servers that Lectern is measured against: one file each, all around the same codec.

Each file says at its top, in the form of PEP 723, what its environment needs beside ``codec.py``'s own needs.
"""

from argparse import ArgumentParser


def read_ports(description: str | None, *names: str) -> list[int]:
    """Read ports from the command line; whatever else is there ends the process with the usage, before it serves."""
    parser = ArgumentParser(description=description)
    for name in names:
        parser.add_argument(name, type=int)
    return [*vars(parser.parse_args()).values()]
