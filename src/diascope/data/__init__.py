"""Images with labels, groups, sources and regions: opened, verified, split, cached, augmented."""

from diascope.data.augment import Augment
from diascope.data.cache import load_pixels
from diascope.data.dataset import Dataset, Reader, ReadError
from diascope.data.named import DATASETS
from diascope.data.opening import open_data, open_dataset
from diascope.data.pixels import Pixels
from diascope.data.preprocess import Preprocess
from diascope.data.regions import load_region
from diascope.data.splits import Splits, split
from diascope.data.verify import Problem, verify

__all__ = [
    "DATASETS",
    "Augment",
    "Dataset",
    "Pixels",
    "Preprocess",
    "Problem",
    "ReadError",
    "Reader",
    "Splits",
    "load_pixels",
    "load_region",
    "open_data",
    "open_dataset",
    "split",
    "verify",
]
