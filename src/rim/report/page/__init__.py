"""The report: one HTML page of runs and comparisons. `build` puts it together, `gather` finds what
goes into it, the others write a part each.
"""
