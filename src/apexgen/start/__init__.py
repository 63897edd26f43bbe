"""How a run begins: a commented run file that fits a card, or one translated from another project's settings."""
