"""An exported model behind a stock server, and a client that asks it.

from rim.deploy import serve
with serve.serve("exported") as server:
    print(server.client().ask("3+4-5=", blocks=5).answer)

Nothing here imports torch: the engine is a process of its own.
"""

from rim.deploy.serve.client import Client, ServerAnswer
from rim.deploy.serve.engines import Engine, command_line, find_engine
from rim.deploy.serve.page import page_url
from rim.deploy.serve.process import Server, serve
from rim.deploy.serve.routing import Routed, Router, calibrate_blocks, calibrate_confidence
from rim.deploy.serve.subject import Subject, find_subject

__all__ = [
    "Client",
    "Engine",
    "Routed",
    "Router",
    "Server",
    "ServerAnswer",
    "Subject",
    "calibrate_blocks",
    "calibrate_confidence",
    "command_line",
    "find_engine",
    "find_subject",
    "page_url",
    "serve",
]
