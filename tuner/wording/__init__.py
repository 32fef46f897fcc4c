"""Wording: the same numbers, names and sentences for the terminal and the report."""
