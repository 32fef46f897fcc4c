"""Goodtune: finds the LLM-serving configuration with the highest goodput."""

__version__ = "0.1.0"
