"""Tasks for lm-evaluation-harness: an exported model scored by somebody else's program, and the
same score as `rim eval`.

    from rim.deploy.harness.writing import write_tasks
    tasks = write_tasks("exported", "tasks", {"rim_gsm8k": "gsm8k_test.jsonl"})
"""
