"""Adds two numbers."""

VERSION = "1.0.0"


def answer(x: int, y: int) -> str:
    return f"{x} + {y} = {x + y}\n"
