"""Exact arithmetic: operators defined to the bit, on any machine that keeps IEEE-754 and integers."""
