"""Causal protocols on a trained run: do the blocks compute, and which block holds what?

`transplant` puts a part of one question's cache into another's and asks whether the answer is the
one that follows from the mixture; `interchange` maps it by block and band of layers; `content` asks
whether it matters what stands in the blocks. All act on the cache between trunk and read-out
(`rim.evaluate.cache_interventions`), on any task that can say what follows from an intermediate
value (`rim.data.tasks.worked`).
"""
