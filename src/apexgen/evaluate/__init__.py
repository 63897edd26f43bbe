"""Judges: each result names who judged."""
