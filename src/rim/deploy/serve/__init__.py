"""An exported model behind a stock server, and a client that asks it.

from rim.deploy import serve
print(serve.Client("localhost:8000").ask("3+4-5=", blocks=5).answer)

Nothing here imports torch: the engine is a program of its own.
"""

from rim.deploy.serve.client import Client, ServerAnswer
from rim.deploy.serve.engines import Engine, command_line, find_engine
from rim.deploy.serve.routing import Routed, Router, calibrate_blocks, calibrate_confidence
from rim.deploy.serve.start import Plan, check_port, greeting, page_url, plan_server
from rim.deploy.serve.subject import Subject, find_subject
