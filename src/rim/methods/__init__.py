"""Methods by name. A new fixed-token method is one small file and one line here."""

from rim.config import Method
from rim.methods.base import FixedTokenMethod, Target, lay_out
from rim.methods.cot import ChainOfThought
from rim.methods.direct import Direct
from rim.methods.rim import ReasoningInMemory

METHODS: dict[Method, FixedTokenMethod] = {
    "direct": Direct(),
    "cot": ChainOfThought(),
    "rim": ReasoningInMemory(),
}

__all__ = ["METHODS", "FixedTokenMethod", "Target", "lay_out"]
