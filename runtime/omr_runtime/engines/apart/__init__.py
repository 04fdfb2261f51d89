"""An engine in a process of its own -> a roller in this one: asks go over, samples come back as they end, weights follow."""
