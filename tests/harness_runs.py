"""lm-evaluation-harness's own entry point, on tasks that we wrote and nothing else."""

from __future__ import annotations

from typing import Any

from rim.deploy.harness.writing import TaskFolder


def run_harness(tasks: TaskFolder, **arguments: Any) -> dict[str, Any]:
    """The harness's results, the samples in the order of the questions."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    results = simple_evaluate(
        tasks=list(tasks.to_run),
        # Indexing the harness's own tasks takes longer than all else.
        task_manager=TaskManager(include_path=str(tasks.folder), include_defaults=False),
        apply_chat_template=True,
        bootstrap_iters=0,
        **arguments,
    )
    for samples in results["samples"].values():
        samples.sort(key=lambda sample: sample["doc_id"])
    return results
