"""The page: teacher beside student, in a browser."""
