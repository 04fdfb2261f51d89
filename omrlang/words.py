"""The words of the language, by what they do: what highlighting, completion and their tests read."""

from __future__ import annotations

from omrlang.functions import COLUMNS, FUNCTIONS
from omrlang.scope import STAGES, THINGS

KINDS: tuple[str, ...] = (*STAGES, *THINGS)
"""What a declaration begins with."""

STATEMENTS: dict[str, str] = {
    "omr": "omr 1",
    "use": "use std.models",
    "amend": 'amend "base.omr"',
    "because": 'because "a weaker teacher"',
    "allow": 'allow W101 because "as published"',
    "seed": "seed = 17",
    "let": 'let data = "data"',
    "budget": "budget { p90 = $100 }",
}
"""What every other statement begins with, and an example of it."""

CLAUSES = ("from", "with", "on")
OPERATORS = ("and", "or", "not", "in", "is", "matches")
CONSTANTS = ("true", "false", "none")
JOINING = ("as", "because")
"""What stands within a statement and is none of the above."""

INSTEAD = {
    "sweep": "`sweep(1, 2, 4)`: one variant of the recipe for each value; several sweeps multiply",
    "unpublished": "a value that nobody published: checked around, unknown in a plan, refused by a run",
    "default": "in an amending file: takes out what the base had set",
}
"""What may stand instead of a setting's value."""

CALLED: tuple[str, ...] = tuple(FUNCTIONS)
ROW_COLUMNS: tuple[str, ...] = tuple(COLUMNS)
