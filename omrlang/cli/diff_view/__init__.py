"""Views of a diff and of a study, all drawn from the same sections."""
