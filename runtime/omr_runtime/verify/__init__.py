"""Verification: sampled rows and a row expression to verdicts, by rules, killable workers and judges."""
