"""Steps for data that has none: split from chains of thought, or written by a teacher.

splitting.py   one chain of thought -> steps and answer
split_file.py  a file of them, each answer checked
teachers.py    what writes chains of thought: a server, a model in this process
distill.py     questions -> steps, by a teacher, continued after any stop
"""

from rim.prepare.distill import Cost, distill_file, estimate
from rim.prepare.split_file import split_file
from rim.prepare.splitting import Solution, split_solution
from rim.prepare.teachers import LocalTeacher, ServerTeacher

__all__ = [
    "Cost",
    "LocalTeacher",
    "ServerTeacher",
    "Solution",
    "distill_file",
    "estimate",
    "split_file",
    "split_solution",
]
