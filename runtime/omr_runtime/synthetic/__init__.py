"""Names of drawn sets -> rows that a program draws, each the same for the same seed and number."""
