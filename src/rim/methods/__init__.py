"""Methods by name. A new one is one small file and one line here."""

from rim.config import Method as MethodName
from rim.methods.base import Method, Target, lay_out
from rim.methods.coconut import Coconut
from rim.methods.codi import Codi
from rim.methods.cot import ChainOfThought
from rim.methods.direct import Direct
from rim.methods.icot import ImplicitChainOfThought
from rim.methods.lotus import Lotus
from rim.methods.pause import Pause
from rim.methods.rim import ReasoningInMemory

METHODS: dict[MethodName, Method] = {
    "direct": Direct(),
    "cot": ChainOfThought(),
    "pause": Pause(),
    "icot": ImplicitChainOfThought(),
    "rim": ReasoningInMemory(),
    "coconut": Coconut(),
    "codi": Codi(),
    "lotus": Lotus(),
}

__all__ = ["METHODS", "Method", "Target", "lay_out"]
