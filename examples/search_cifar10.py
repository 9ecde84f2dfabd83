"""Search networks for CIFAR-10 by Bayesian optimization inside a budget of multiply-adds, in a script of one process.

    TFDS_DATA_DIR=... python examples/search_cifar10.py [--train-size 5000] [--trials 8] [--epochs 4] [--max-macs 10000000]

The tuner is KerasTuner's, over the points inside the budget; each trial survives its process, so the same command goes
on after an interruption. `make_data` makes the batches, so the strength of the augmentation is searched too.

Measured: not yet, beyond its smoke mode.
"""

import argparse
import tempfile

import keras_resnet
from keras_resnet.search import HyperResNet, make_tuner

from smoke_data import make_smoke_data


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train-size", type=int, default=5000, help="images the trials train on, drawn by the seed")
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=4, help="of each trial")
    parser.add_argument("--max-macs", type=int, default=10_000_000, help="most multiply-adds of any network")
    parser.add_argument("--folder", default="searches/cifar10")
    parser.add_argument("--smoke", action="store_true", help="a few steps on data made here")
    args = parser.parse_args()
    name = "cifar10"
    if args.smoke:
        name, args.folder = make_smoke_data(32, 32, 3), tempfile.mkdtemp()
        args.train_size, args.trials, args.epochs, args.max_macs = 24, 2, 1, 1_000_000

    data = keras_resnet.load_data(name)
    drawn = keras_resnet.draw_subset(data.train, args.train_size, seed=0, what="train-size")
    rest, held_out = keras_resnet.split_stratified(drawn.labels, 0.2, seed=0)
    train, validation = drawn.take(rest), drawn.take(held_out)
    preprocessing = keras_resnet.compute_preprocessing(data, train)

    def make_data(recipe, first_epoch=0):
        return (
            keras_resnet.make_train_dataset(
                train,
                preprocessing,
                batch_size=recipe.batch_size,
                seed=recipe.seed,
                augmentation=recipe.augmentation,
                first_epoch=first_epoch,
            ),
            keras_resnet.make_eval_dataset(validation, preprocessing),
        )

    hypermodel = HyperResNet(
        preprocessing.input_shape,
        len(data.class_names),
        max_macs=args.max_macs,
        recipe=keras_resnet.Recipe(epochs=args.epochs, horizontal_flip=True),
        make_data=make_data,
    )
    tuner = make_tuner("bayesian", hypermodel, max_trials=args.trials, seed=0, directory=args.folder)
    tuner.search(verbose=2)
    for trial in tuner.oracle.get_best_trials(3):
        spec, recipe = hypermodel.sample(trial.hyperparameters)
        macs = keras_resnet.count_macs(spec, preprocessing.input_shape, len(data.class_names))
        print(
            f"validation accuracy {trial.score:.4f}: {spec.name}, {macs:,} multiply-adds, learning rate "
            f"{recipe.learning_rate:g}, shift {recipe.shift_fraction:g}"
        )


if __name__ == "__main__":
    main()
