"""Streams of random numbers: apart from each other, and the same for ever."""

from keras_resnet import seeds

ADDED = {"AUGMENTATION": 1_000_003, "CROPS": 2_000_003, "FILE_ORDER": 3_000_017, "BUFFER": 5_000_011}
FIRST = {"BALANCE": 7_000_003}
SECOND = {"TRAIN_SUBSET": 1, "TEST_SUBSET": 2, "VALIDATION": 3}
ALONE = {"FIXED_SPLIT": 0}


def test_streams_stay_what_they_are():
    """A changed value would be other batches and other test images of the same seed, without any error."""
    found = {name: value for name, value in vars(seeds).items() if name.isupper()}
    assert found == {**ADDED, **FIRST, **SECOND, **ALONE}


def test_no_two_of_a_kind_are_the_same():
    for kind in (ADDED, SECOND):
        assert len(set(kind.values())) == len(kind)
    sums = [a + b for a in ADDED.values() for b in ADDED.values()]
    assert not set(sums) & set(ADDED.values())  # crops are drawn beyond the stream of augmentation
