"""From the options of an evaluation to what does it."""

from __future__ import annotations

from paddle_sam.ageing.evaluate import evaluate_ageing
from paddle_sam.ageing.reconstruction import evaluate_reconstruction
from paddle_sam.metrics import options
from paddle_sam.metrics.sets import evaluate_sets, evaluate_stargan2, evaluate_stylegan2

_DONE_BY = {
    options.SetsOptions: evaluate_sets,
    options.GeneratorOptions: evaluate_stylegan2,
    options.StarGAN2EvaluationOptions: evaluate_stargan2,
    options.AgeingEvaluationOptions: evaluate_ageing,
    options.ReconstructionOptions: evaluate_reconstruction,
}


def evaluate(config) -> dict:
    """Do the evaluation that these options (`configs.evaluate.KINDS`) describe.

    Raises:
        PaddleSamError: an option is missing, or a file cannot be used.
    """
    return _DONE_BY[type(config)](config)
