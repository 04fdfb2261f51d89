"""The language server: what an editor asks about a recipe becomes an answer. One feature, one file."""
