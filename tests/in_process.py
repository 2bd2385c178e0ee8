"""The executor of tests: replays in this process, which saves the time that one takes to start."""

from gradseal.verify.in_process import InProcess

__all__ = ["InProcess"]
