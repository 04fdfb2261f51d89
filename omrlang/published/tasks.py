"""Benchmarks of the standard library to the tasks of the programs that score them elsewhere, and back."""

from __future__ import annotations

from typing import Literal, TypeAlias

Program: TypeAlias = Literal["lmms_eval", "lm_eval"]

LMMS_EVAL = {
    "mathvista": "mathvista_testmini_cot_reward",
    "mathvision": "mathvision_reason_test_reward",
    "mathvision_mini": "mathvision_reason_testmini_reward",
    "mathverse": "mathverse_testmini_reward",
    "dynamath": "dynamath",
    "wemath": "wemath_testmini_thinking",
    "logicvista": "logicvista_thinking",
    "mmmu": "mmmu_reasoning_reward",
    "mmmu_pro": "mmmu_pro_standard_cot_reward",
    "mmmu_pro_vision": "mmmu_pro_vision_cot_reward",
    "charxiv_reasoning": "charxiv_val_reasoning_cot",
    "charxiv_descriptive": "charxiv_val_descriptive_cot",
    "aime24": "aime24_nofigures_agg8_reward",
    "aime25": "aime25_nofigures_agg8_reward",
    "gpqa_diamond": "gpqa_diamond_thinking",
}
"""Tasks of OpenMMReasoner for lmms-eval (at 67441eb8); they stand in its repository and are given by ``--include_path``."""
LM_EVAL = {"gsm8k": "gsm8k"}
"""Tasks of lm-eval (0.4.9) that ask the same items."""
TASKS: dict[Program, dict[str, str]] = {"lmms_eval": LMMS_EVAL, "lm_eval": LM_EVAL}
BENCHMARKS = {task: name for tasks in TASKS.values() for name, task in tasks.items()}
"""Tasks to benchmarks; another task is a column of its own name."""
