"""What methods and tasks are, in a line each, for readers who have never seen the project."""

from __future__ import annotations

METHODS = {
    "direct": "answers at once: no steps, no extra tokens",
    "cot": "chain of thought: writes its steps, then the answer",
    "rim": "reasoning in memory: fixed blocks of special tokens stand behind the question and are "
    "read with it in one pass; the answer follows at once, nothing is written in between",
    "pause": "extra tokens behind the question, too, but nothing is said after each of them",
    "icot": "learned to write its steps, which training then took away, token by token",
    "coconut": "feeds its own hidden states back, one after the other, instead of written steps",
    "codi": "feeds hidden states back, too, and is taught by its own written steps",
    "lotus": "latent tokens, passed through the model several times at once",
}

#: Tasks whose intermediate values protocols do not read.
UNREAD = {"graph_search", "multiplication", "word_problems"}
TASKS = {
    "arithmetic": "chains such as 3+4-5=, worked out one operation at a time",
    "brackets": "sums and products with brackets, worked out from the inside",
    "graph_search": "which of two things follows from a list of statements",
    "multiplication": "products of long numbers, digit by digit",
    "pair_matching": "is there a pair of numbers that fit together",
    "pointers": "follow arrows from letter to letter",
    "prefix_counts": "count ones, from the front of a row of bits",
    "relations": "who is meant by a chain of family and friends",
    "word_problems": "short stories with numbers, solved in a few steps",
}
