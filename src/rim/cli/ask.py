"""`rim ask`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from rim.cli import common, selecting
from rim.cli.common import tell_of_more
from rim.cli.help import Dtype, Natural, NotNegative, Positive, refuse_unused


def ask(
    words: list[str],
    *,
    server: str | None = None,
    model: str | None = None,
    api_key_env: str | None = None,
    forbid: str | None = None,
    blocks: str | None = None,
    all_blocks: bool = False,
    max_new_tokens: Positive = 64,
    temperature: NotNegative = 0.0,
    top_k: Natural = 0,
    top_p: float = 1.0,
    samples: Positive = 1,
    seed: int = 0,
    select: str | None = None,
    fallback: Path | None = None,
    json_: bool = False,
    device: str | None = None,
    dtype: Dtype = None,
) -> None:
    """Ask a trained model one question: a run (`rim ask RUN QUESTION`), or a server that is already
    running (`rim ask --server URL QUESTION`).

    Args:
        words ([RUN] QUESTION): Run folder or model folder, and the question; with --server the
            question alone.
        server (URL): Ask a running server (`rim serve`) instead of a run.
        model (NAME): Model of a server that has several.
        api_key_env (VARIABLE): Environment variable with the server's key; none if left out.
        all_blocks: Show the answer after every block.
        top_k (N): Sample from so many tokens; 0 is off.
        samples (N): Sampled answers (needs a temperature).
    """
    with common.clear_errors():
        from rim.cli.checks import block_counts, check_model
        from rim.config import ConfigError
        from rim.models.folder import read_prompt_format

        counts = block_counts(blocks)
        if server is not None:
            refused = {
                "--all-blocks (ask for --blocks 1,2,3 instead)": all_blocks,
                "--top-k": top_k != 0,
                "--samples": samples != 1,
                "--device": device is not None,
                "--dtype": dtype is not None,
                "--select": select is not None,
            }
            for option, given in refused.items():
                if given:
                    raise ConfigError(f"a server does not take {option}")
        else:
            refuse_unused("only with --server", "model", "api_key_env", "forbid")
        run, question = _run_and_question(words, server)
        if all_blocks and len(counts) > 1:
            raise ConfigError("--all-blocks goes with one number of --blocks")
        if fallback is not None and select is None:
            raise ConfigError("--fallback goes with --select")
        if select is not None:
            refuse_unused("not with --select", "seed")
            sampled = samples > 1 or temperature > 0 or top_k > 0 or top_p < 1
            if all_blocks or len(counts) > 1 or sampled:
                raise ConfigError(
                    "--select goes with one number of --blocks and greedy answers, not with "
                    "--all-blocks"
                )
            record = selecting.ask_run(
                run, question, select, counts[0], fallback, max_new_tokens, device, dtype
            )
            common.print_json(record) if json_ else selecting.say_selected(record)
            return
        if server is not None:
            from rim.deploy.serve.client import Client

            key, never = key_of(api_key_env), token_ids(forbid)
            client = Client(server, model=model, api_key=key, forbidden_ids=never)
            common.sampling(temperature, 0, top_p, 1, seed)  # refuses what would do nothing
            options = {"temperature": temperature, "top_p": top_p, "seed": seed}
            options["max_new_tokens"] = max_new_tokens
            rows = _ask_server(client, question, counts, options)
        else:
            options = {"after": "all" if all_blocks else "final", "max_new_tokens": max_new_tokens}
            options["sampling"] = common.sampling(temperature, top_k, top_p, samples, seed)
            tell_of_more(counts, read_prompt_format(check_model(run, counts, device)))
            reasoner = common.load(run, device, dtype)
            rows = [
                _row(answer)
                for count in counts
                for answer in reasoner.ask_many([question], blocks=count, **options)[0]
            ]
        _show(rows, json_, all_blocks, len(counts) > 1)


def _ask_server(
    client: Any, question: str, counts: list[int | None], options: dict[str, Any]
) -> list[dict[str, Any]]:
    """A server's answer for each number of blocks."""
    if len(counts) > 1:  # a server's first answer is slow: it is not the one to compare
        client.ask(question, blocks=counts[0], max_new_tokens=1)
    return [vars(client.ask(question, blocks=count, **options)) for count in counts]


def _run_and_question(words: list[str], server: str | None) -> tuple[Path, str]:
    """
    Raises:
        ConfigError: a word too many or too few, or an empty question.
    """
    from rim.config import ConfigError

    if server is not None and len(words) != 1:
        raise ConfigError("with --server give the question alone (quoted); the server has a model")
    if server is None and len(words) != 2:
        raise ConfigError(
            'give a run and a question, `rim ask RUN "QUESTION"`, or a server and a question, '
            '`rim ask --server URL "QUESTION"`'
        )
    question = words[-1]
    if not question.strip():
        raise ConfigError("the question is empty")
    return Path(words[0]), question


def key_of(variable: str | None) -> str | None:
    """
    Raises:
        ConfigError: the variable is not set.
    """
    from rim.config import ConfigError

    if variable is None:
        return None
    if not os.environ.get(variable):
        raise ConfigError(f"--api-key-env: there is nothing in the variable {variable}")
    return os.environ[variable]


def token_ids(text: str | None) -> tuple[int, ...]:
    """
    Raises:
        ConfigError: not numbers of tokens.
    """
    from rim.config import ConfigError

    pieces = [] if text is None else [piece.strip() for piece in text.split(",")]
    if not all(piece.isascii() and piece.isdigit() and len(piece) < 10 for piece in pieces):
        raise ConfigError(f"--forbid takes numbers of tokens, as 50257,50258, got {text!r}")
    return tuple(map(int, pieces))


def _row(answer: Any) -> dict[str, Any]:
    """An answer of a run, named as a server's: the blocks before it are those it was asked with."""
    fields = dict(vars(answer))
    return {"blocks": fields.pop("after_block"), **fields}


def _show(rows: list[dict[str, Any]], as_json: bool, all_blocks: bool, several: bool) -> None:
    """Print answers of a run or of a server, one a line."""
    if as_json:
        common.print_json(rows)
        return
    for row in rows:
        count, answer, text = row["blocks"], row["answer"], row["text"]
        label = f"block {count}: " if all_blocks else f"{count} blocks: " if several else ""
        note = "" if row["finished"] else "  (cut off by --max-new-tokens)"
        if "first_ms" in row:
            note += f"    [first text {row['first_ms']:.0f} ms, all {row['answer_ms']:.0f} ms]"
        shown = answer if text.strip() == answer else f"{answer}    {text!r}"
        shown = shown if text.strip() else "(an empty answer)"
        # One line an answer: its own line breaks are shown, not made.
        common.say(label + common.printable(shown, keep="") + note)
