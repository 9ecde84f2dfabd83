"""Data: which images (`load_data`), what is done to each, and how they flow to the network."""

from keras_resnet.data.balance import class_weights
from keras_resnet.data.batches import count_batches
from keras_resnet.data.pipeline import make_eval_dataset, make_train_dataset
from keras_resnet.data.preprocess import decode, normalize, preprocess, resize_with_pad
from keras_resnet.data.sources import load_data
from keras_resnet.data.splits import ImageData, Split, draw_subset, split_stratified
from keras_resnet.data.statistics import compute_preprocessing

__all__ = [
    "ImageData",
    "Split",
    "class_weights",
    "compute_preprocessing",
    "count_batches",
    "decode",
    "draw_subset",
    "load_data",
    "make_eval_dataset",
    "make_train_dataset",
    "normalize",
    "preprocess",
    "resize_with_pad",
    "split_stratified",
]
