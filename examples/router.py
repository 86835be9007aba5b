"""Two servers, one answer: memory blocks first, chain of thought where that is unsure.

    rim gguf exported-rim --out rim.gguf          # both exported before with `rim export`
    rim gguf exported-cot --out cot.gguf
    rim serve rim.gguf --engine llama.cpp --port 8001
    rim serve cot.gguf --engine llama.cpp --port 8002
    python examples/router.py --rim http://localhost:8001 --cot http://localhost:8002 \\
        --confidence 0.9 "3+4-5=" "7+8-3+4="

The first server must tell log-probabilities: llama.cpp and vLLM do. benchmarks/budget.py chooses
the confidence on validation questions and measures what it is worth.
"""

from __future__ import annotations

import argparse

from rim.deploy.serve import Client, Router


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rim", required=True, metavar="URL", help="server of the RiM model")
    parser.add_argument("--cot", required=True, metavar="URL", help="server of the slow model")
    parser.add_argument("--confidence", type=float, default=0.9)
    parser.add_argument("--blocks", type=int, help="memory blocks; the server's own if left out")
    parser.add_argument("question", nargs="+")
    arguments = parser.parse_args()
    router = Router(
        Client(arguments.rim),
        Client(arguments.cot, separator=";"),
        confidence=arguments.confidence,
    )
    for question in arguments.question:
        routed = router.ask(question, blocks=arguments.blocks)
        print(
            f"{question} {routed.answer.answer}   {routed.answer_ms:.0f} ms, "
            f"by the {routed.by} model"
        )


if __name__ == "__main__":
    main()
