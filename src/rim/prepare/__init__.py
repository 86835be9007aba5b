"""Steps for data that has none: split from chains of thought, or written by a teacher.

splitting.py   one chain of thought -> steps and answer
split_file.py  a file of them, each answer checked
teachers.py    what writes chains of thought: a server, a model in this process
distill.py     questions -> steps, by a teacher, continued after any stop
"""

from rim.prepare.split_file import split_file
from rim.prepare.splitting import split_solution
