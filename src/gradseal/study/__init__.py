"""Measurements of what verification is worth: attacks against policies, initialisation tests."""
