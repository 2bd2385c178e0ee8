"""Whole trainings on real data, to record from the command line."""
