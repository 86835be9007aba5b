"""How a command declares its options, and how help texts look.

A command is a plain function. What stands before its `*` are arguments, what stands behind are
options; types and defaults are those of the signature, words those of the docstring's `Args`:
`name (METAVAR): help`. Options that several commands share have their words in `SHARED`.

In a help text a switch is its name alone, without a `<bool>` behind it; an argument is a word in
capitals, the same in the first line as in the table, without a `<path>` behind it.
"""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Callable
from contextvars import ContextVar
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from typer.core import TyperCommand, TyperGroup

Positive = Annotated[int, typer.Option(min=1)]
PositiveOrNone = Annotated[int | None, typer.Option(min=1)]
MinutesOrNone = Annotated[float | None, typer.Option(min=0.01)]
Natural = Annotated[int, typer.Option(min=0)]
NotNegative = Annotated[float, typer.Option(min=0)]
Dtype = Literal["float32", "bfloat16"] | None

SHARED = """
    batch_size (N): Questions at a time.
    blocks (K,...): Memory blocks; several numbers give a result for each. As in training if left
        out.
    column (ROLE=NAME): Which column of a CSV, a Parquet file or a set of the hub, or which field of
        a JSONL, is the question, the steps or the answer: question=Problem. Repeatable.
    data (DATA): Data file (JSONL, CSV, Parquet or a published format), or hub:OWNER/NAME:SPLIT.
    device (NAME): cpu, cuda, cuda:1, mps ...; the best if left out.
    dtype (NAME): float32 or bfloat16 weights; as trained if left out. bfloat16 is half the memory
        and less exact.
    fallback (RUN): With --select: a run that is asked where the selector is not sure enough, for
        example one that writes its steps.
    file (FILE): Data file (JSONL, CSV, Parquet or a published format), or hub:OWNER/NAME:SPLIT.
    forbid (ID,...): With --server: tokens that an answer may not contain. `rim serve` names the
        memory tokens where its engine lets a model write them (vLLM).
    format_ (NAME): One of jsonl, csv, parquet, gsm8k, gsm8k_sentences, gsm8k_aug, gsm8k_aug_json,
        gsm_hard, svamp, prosqa, multiplication_file; told by the content if left out.
    json_: Print one JSON document; text for people goes to stderr.
    limit (N): Read only so many examples.
    max_new_tokens (N): Longest answer, in tokens.
    out (FILE): Also write the result JSON here.
    run (RUN): Run folder or model folder.
    seed (N): Seed of sampling.
    select (NAME,...): Read out after every block and let a selector choose: final, first, highest,
        vote, weighted_vote, early, probe; `rim eval` takes several, or all.
    separator (TEXT): Parts steps that stand in one string; a line break if left out.
    temperature (X): 0 is greedy.
    top_p (X): Sample from the likeliest tokens of this total probability; 1 is off.
"""
_ENTRY = re.compile(r"^    (\w+)(?: \((.*?)\))?: (.*(?:\n {5,}.*)*)", re.MULTILINE)


def refuse_unused(why: str, *names: str) -> None:
    """Refuse what a command line names and nothing would read.

    Args:
        why: what the options' names are followed by: "goes with --data".
        names: parameters of the command.

    Raises:
        ConfigError: one of them was given.
    """
    from rim.config import ConfigError

    given = [f"--{n.rstrip('_').replace('_', '-')}" for n in names if n in _GIVEN.get()]
    if given:
        raise ConfigError(f"{', '.join(given)}: {why}")


def add_command(
    app: typer.Typer, function: Callable[..., None], name: str | None = None, **options: Any
) -> None:
    """Make a function a command of an app, its parameters described as its docstring says.

    Raises:
        LookupError: no words for a parameter.
    """
    text, _, own = (inspect.getdoc(function) or "").partition("\n\nArgs:\n")
    words = {entry[1]: entry for entry in _ENTRY.finditer(f"{SHARED}\n{own}")}
    for parameter in inspect.signature(function, eval_str=True).parameters.values():
        if parameter.name not in words:
            command = name or function.__name__
            raise LookupError(
                f"parameter {parameter.name} of `rim {command}` has no line in Args or SHARED"
            )
        metavar, described = words[parameter.name].group(2, 3)
        kind, info = parameter.annotation, typer.Option()
        if parameter.kind is not parameter.KEYWORD_ONLY:
            info = typer.Argument()
        elif get_origin(kind) is Annotated:
            kind, info = get_args(kind)
            info = copy.copy(info)
        if parameter.kind is parameter.KEYWORD_ONLY and info.default is ...:  # no name of its own
            info.param_decls = ("--" + parameter.name.rstrip("_").replace("_", "-"),)
        info.metavar, info.help = metavar, " ".join(described.split())
        function.__annotations__[parameter.name] = Annotated[kind, info]
    app.command(name, help=text, cls=_PlainCommand, **options)(function)


def _plain(params: list[Any]) -> list[Any]:
    for param in params:
        if param.param_type_name == "argument":
            word = param.metavar = param.metavar or param.name.upper()
            usage = word if param.required else f"[{word}]"
            param.get_usage_pieces = lambda ctx, usage=usage: [usage]
            param.display_type_rich = lambda ctx: None
        elif param.is_flag:
            param.metavar = ""
    return params


#: Parameters of the running command that its command line names.
_GIVEN: ContextVar[frozenset[str]] = ContextVar("given", default=frozenset())


class _PlainCommand(TyperCommand):
    def invoke(self, ctx: Any) -> Any:
        named = {n for n in ctx.params if ctx.get_parameter_source(n).name == "COMMANDLINE"}
        _GIVEN.set(frozenset(named))
        return super().invoke(ctx)

    def get_params(self, ctx: Any) -> list[Any]:
        return _plain(super().get_params(ctx))


class PlainGroup(TyperGroup):
    def get_params(self, ctx: Any) -> list[Any]:
        return _plain(super().get_params(ctx))
