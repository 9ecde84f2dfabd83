"""Streams of random numbers drawn from one seed: each draw has a stream of its own, so that changing one leaves the others.

The values are arbitrary and stay what they are: other values would be other batches, subsets and splits of the same seed.
"""

from __future__ import annotations

# Added to the seed of a stateless draw of TensorFlow's. The order of the images of an epoch takes the bare seed.
AUGMENTATION = 1_000_003  # what changes the images and labels of a batch; split further by `data.augment`
CROPS = 2_000_003  # beyond AUGMENTATION: which window of each image a resized crop takes
FILE_ORDER = 3_000_017  # in which order an epoch reads the record files of a streamed set
BUFFER = 5_000_011  # which image leaves the shuffle's buffer of a streamed set

# The first number of a sequence that seeds a NumPy generator.
BALANCE = 7_000_003  # which images a balanced epoch takes of each class, and in which order

# The second number of such a sequence, behind the seed.
TRAIN_SUBSET = 1  # which training images a run takes, where it is told how many
TEST_SUBSET = 2  # which test images
VALIDATION = 3  # which of the training images are held out

# A seed of its own: the parts of a set that comes unsplit are the same for every run, so that test images stay test images.
FIXED_SPLIT = 0
