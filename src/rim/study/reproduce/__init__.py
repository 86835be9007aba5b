"""The paper's experiments by name: recipes, what is expected of them, what they cost, how they did.

The recipes are the files of `recipes/paper`; a reproduction is a comparison (`rim.study.compare`)
of one method, so that it continues, refuses to mix settings, and writes results as any other.
"""
