"""Exports: a student as stock tools open it, each checked by opening it again."""
