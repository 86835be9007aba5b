"""Experiments of several runs: demos, comparisons, benchmarks."""

from pathlib import Path

#: The comparison of `rim demo --model smollm2`; it extends and is extended as any other.
DEMO_SMOLLM2 = Path(__file__).with_name("demo_smollm2.yaml")
#: The comparison of `rim compare --data`.
COMPARE_MY_DATA = Path(__file__).with_name("compare_my_data.yaml")
