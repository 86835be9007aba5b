"""A comparison repeated over a grid of settings: what `rim study` runs.

settings.py   a study's YAML: a comparison, and the axes along which it is repeated
running.py    every point of the grid, continued, and one result of them all
*.yaml        the studies that come with the library
"""
