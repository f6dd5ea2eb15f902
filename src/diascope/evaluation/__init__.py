"""What a model gets right and where it looks, measured, each number with its interval."""

from diascope.evaluation.choosing import Choice, choose_epsilon, compare_choices
from diascope.evaluation.imputation import impute
from diascope.evaluation.localisation import centre_prior, localisation_table
from diascope.evaluation.maps import compare_maps, maps_table
from diascope.evaluation.measures import MEASURES
from diascope.evaluation.measures.agreement import Spearman, Ssim, TopOverlap
from diascope.evaluation.measures.colour import ColourVariation
from diascope.evaluation.measures.infidelity import Infidelity
from diascope.evaluation.measures.insertion import Deletion, Insertion
from diascope.evaluation.measures.localisation import AveragePrecision, MassInside, PointingGame
from diascope.evaluation.measures.overlap import AreaOverlap, OtsuOverlap
from diascope.evaluation.measures.perturbation import EnergyInside, LevelRange, PictureContrast
from diascope.evaluation.measures.road import ROAD
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
from diascope.evaluation.sanity import Sanity, randomised, sanity_check
from diascope.evaluation.scores import score_table
from diascope.evaluation.stability import (
    agreement_table,
    attack_stability,
    max_sensitivity,
    model_stability,
    noise_stability,
)
from diascope.evaluation.statistics import (
    Interval,
    bootstrap_curve,
    bootstrap_curve_difference,
    bootstrap_difference,
    bootstrap_independent,
    bootstrap_mean,
    bootstrap_p_value,
    bootstrap_statistic,
    bootstrap_statistics,
)
from diascope.evaluation.tables import read_table, write_table

__all__ = [
    "MEASURES",
    "ROAD",
    "AreaOverlap",
    "AveragePrecision",
    "Choice",
    "ColourVariation",
    "Deletion",
    "EnergyInside",
    "Entropy",
    "Gini",
    "HighFrequency",
    "Infidelity",
    "Insertion",
    "Interval",
    "LevelRange",
    "MassInside",
    "OtsuOverlap",
    "PictureContrast",
    "PointingGame",
    "Sanity",
    "Spearman",
    "Ssim",
    "TopOverlap",
    "TotalVariation",
    "agreement_table",
    "attack_stability",
    "bootstrap_curve",
    "bootstrap_curve_difference",
    "bootstrap_difference",
    "bootstrap_independent",
    "bootstrap_mean",
    "bootstrap_p_value",
    "bootstrap_statistic",
    "bootstrap_statistics",
    "centre_prior",
    "choose_epsilon",
    "compare_choices",
    "compare_maps",
    "energy_inside",
    "impute",
    "localisation_table",
    "maps_table",
    "max_sensitivity",
    "model_stability",
    "noise_stability",
    "perturbation_pictures",
    "perturbation_table",
    "predict",
    "predict_logits",
    "prediction_table",
    "randomised",
    "read_table",
    "resample_weights",
    "sanity_check",
    "score_predictions",
    "score_table",
    "write_table",
]
