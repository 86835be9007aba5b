"""`rim answer`: a file of questions in, a file of answers out, however many."""

from rim.deploy.answer.engines import LocalEngine, RayEngine, ServerEngine
from rim.deploy.answer.job import Shard, answer_file

__all__ = ["LocalEngine", "RayEngine", "ServerEngine", "Shard", "answer_file"]
