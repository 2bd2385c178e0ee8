"""Checking a bundle."""
