"""Are the steps that can be read off blocks the ones that the answer comes from? `readers` read
them, `transplants` move them, `measure` asks both, `lines` says in words what came out.
"""
