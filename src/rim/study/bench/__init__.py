"""How long an answer takes, method by method, on one model and one machine.

Everything runs through `rim.infer.decode.generate`, the decoder that answers real questions. Time
depends on shapes, not on weights or words, so questions are random ordinary tokens, exactly as
many as asked for, and the stop token is forbidden: every answer has the stated length.
"""
