"""The command line: one file a verb; each parses, calls and prints.

Exit status: 0 accepted or done, 1 rejected, 2 wrong usage or broken input, 3 inconclusive.
"""

from gradseal.cli.main import main

__all__ = ["main"]
