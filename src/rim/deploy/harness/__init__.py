"""Tasks for lm-evaluation-harness: an exported model scored by somebody else's program, and the
same score as `rim eval`.

    from rim.deploy import harness
    tasks = harness.write_tasks("exported", "tasks", {"rim_gsm8k": "gsm8k_test.jsonl"})
"""

from rim.deploy.harness.writing import TaskFolder, model_command, server_command, write_tasks

__all__ = ["TaskFolder", "model_command", "server_command", "write_tasks"]
