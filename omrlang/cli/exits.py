"""What each exit code means: one meaning each, the same for every command."""

EXIT_CODES: dict[int, str] = {
    0: "done",
    1: "error: the recipe, the data or the machine is not as it must be",
    2: "changes exist (only with `--detailed-exitcode`, of `omr plan` and `omr diff`)",
    3: "a limit is breached: over budget, does not fit, or comes out otherwise than expected",
    4: "stale plan: what it was made of has moved",
    5: "interrupted or undecided; the same command goes on where it stopped",
    64: "wrong usage of the command line",
}
PRECEDENCE = (64, 1, 4, 3, 5, 2, 0)
"""Of several codes the first in this order counts."""
