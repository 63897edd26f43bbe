"""GenEval: are the things asked for there, as many, in their colors and places? An object detector and CLIP judge.

Ghosh et al., https://arxiv.org/abs/2310.11513; files and rules as in https://github.com/djghosh13/geneval.
"""
