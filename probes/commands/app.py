"""The app `probes`, put together."""

from embedstore.terminal.app import make_app
from probes.commands.evaluating import evaluate_command
from probes.commands.fitting import manifest_command, run_command, split_command
from probes.commands.judging import compare_command, predict_command, report_command, verify_command
from probes.commands.labelling import (
    copies_command,
    doubtful_command,
    raters_command,
    rescore_command,
    suggest_command,
)
from probes.commands.studying import (
    fusion_command,
    gap_command,
    likeness_command,
    reproduce_command,
    robustness_command,
    shots_command,
)

probes_app = make_app(
    "probes",
    "Linear probes on any slice of the embeddings.",
    {
        "Ask how good a model is": {
            "evaluate": evaluate_command,
            "run": run_command,
            "compare": compare_command,
            "gap": gap_command,
            "reproduce": reproduce_command,
            "report": report_command,
        },
        "Ask why, and what if": {
            "robustness": robustness_command,
            "shots": shots_command,
            "fusion": fusion_command,
            "likeness": likeness_command,
        },
        "Look into labels and cells": {
            "raters": raters_command,
            "doubtful": doubtful_command,
            "rescore": rescore_command,
            "copies": copies_command,
            "suggest": suggest_command,
        },
        "Splits and records": {
            "split": split_command,
            "manifest": manifest_command,
            "predict": predict_command,
            "verify": verify_command,
        },
    },
)
