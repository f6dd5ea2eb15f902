"""Images with labels, groups, sources and regions: opened, verified, split, cached, augmented."""

from diascope.data.dataset import Dataset, Reader, ReadError
from diascope.data.named import DATASETS
from diascope.data.opening import open_data, open_dataset
from diascope.data.preprocess import Preprocess
from diascope.data.splits import Splits, split

__all__ = [
    "DATASETS",
    "Dataset",
    "Preprocess",
    "ReadError",
    "Reader",
    "Splits",
    "open_data",
    "open_dataset",
    "split",
]
