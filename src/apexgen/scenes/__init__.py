"""The embedded world of captioned scenes: draw them, score them exactly, and the tiny pipeline trained on them."""
