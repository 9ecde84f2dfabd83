"""Search networks for MNIST with Hyperband in two worker processes, then train the winner and evaluate it.

    python examples/search_mnist.py [--train-size 10000] [--trials 20] [--max-params 100000] [--folder searches/mnist]

The same as `keras-resnet search mnist ...` and `keras-resnet train mnist --from FOLDER`. Interrupted, the same command
goes on where it was.

Measured on 2 cores of an AMD EPYC with AVX-512: 18 of 20 trials in 7 minutes, when it was stopped; not yet whole.
"""

import argparse
import tempfile

from keras_resnet import jobs

from smoke_data import make_smoke_data


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train-size", type=int, default=10_000, help="images the trials train on, drawn by the seed")
    parser.add_argument("--trials", type=int, default=20, help="every rung of Hyperband is one")
    parser.add_argument("--epochs", type=int, default=9, help="of a network that passes every rung")
    parser.add_argument("--max-params", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", default="searches/mnist")
    parser.add_argument("--smoke", action="store_true", help="a few steps on data made here")
    args = parser.parse_args()
    data, recipe = "mnist", {"epochs": args.epochs}
    if args.smoke:
        data, recipe, args.folder = make_smoke_data(8, 8, 1), {"epochs": 1, "batch_size": 8}, tempfile.mkdtemp()
        args.train_size, args.trials, args.workers = None, 2, 1

    search = jobs.search(
        data,
        tuner="hyperband",
        trials=args.trials,
        max_params=args.max_params,
        workers=args.workers,
        train_size=args.train_size,
        recipe=recipe,
        search_dir=args.folder,
        on_change=show,
    )
    print()
    for trial in search.ranking[:5]:
        print(f"{trial.kept.val_accuracy:.4f} after {trial.epochs} epochs: {trial.spec.name}, {trial.parameters:,}")

    run = jobs.train(data, search_dir=search.path, run_dir=f"{args.folder}/winner", verbose=2)
    print(
        f"winner {run.spec.name}, {search.best.parameters:,} parameters: test accuracy {run.record.test.accuracy:.4f}"
    )


def show(trials: tuple) -> None:
    """Epochs done of all trials begun, on one line."""
    done, begun = sum(len(trial.history) for trial in trials), len(trials)
    print(f"\r{begun} trials begun, {done} epochs done", end="", flush=True)


if __name__ == "__main__":
    main()
