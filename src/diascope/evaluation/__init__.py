"""What a model gets right and where it looks, measured, each number with its interval."""

from diascope.evaluation.localisation import centre_prior, localisation_table
from diascope.evaluation.maps import compare_maps, maps_table
from diascope.evaluation.measures import MEASURES
from diascope.evaluation.measures.agreement import Spearman, Ssim, TopOverlap
from diascope.evaluation.measures.colour import ColourVariation
from diascope.evaluation.measures.localisation import AveragePrecision, MassInside, PointingGame
from diascope.evaluation.measures.overlap import AreaOverlap, OtsuOverlap
from diascope.evaluation.measures.perturbation import EnergyInside, LevelRange, PictureContrast
from diascope.evaluation.measures.sharpness import Entropy, Gini, HighFrequency, TotalVariation
from diascope.evaluation.perturbation import (
    energy_inside,
    perturbation_pictures,
    perturbation_table,
)
from diascope.evaluation.predictions import (
    predict,
    predict_logits,
    prediction_table,
    score_predictions,
)
from diascope.evaluation.resampling import resample_weights
from diascope.evaluation.scores import score_table
from diascope.evaluation.statistics import (
    Interval,
    bootstrap_curve,
    bootstrap_curve_difference,
    bootstrap_difference,
    bootstrap_mean,
    bootstrap_p_value,
    bootstrap_statistic,
    bootstrap_statistics,
)
from diascope.evaluation.tables import read_table, write_table

__all__ = [
    "MEASURES",
    "AreaOverlap",
    "AveragePrecision",
    "ColourVariation",
    "EnergyInside",
    "Entropy",
    "Gini",
    "HighFrequency",
    "Interval",
    "LevelRange",
    "MassInside",
    "OtsuOverlap",
    "PictureContrast",
    "PointingGame",
    "Spearman",
    "Ssim",
    "TopOverlap",
    "TotalVariation",
    "bootstrap_curve",
    "bootstrap_curve_difference",
    "bootstrap_difference",
    "bootstrap_mean",
    "bootstrap_p_value",
    "bootstrap_statistic",
    "bootstrap_statistics",
    "centre_prior",
    "compare_maps",
    "energy_inside",
    "localisation_table",
    "maps_table",
    "perturbation_pictures",
    "perturbation_table",
    "predict",
    "predict_logits",
    "prediction_table",
    "read_table",
    "resample_weights",
    "score_predictions",
    "score_table",
    "write_table",
]
