"""`python -m keras_resnet.cli`."""

from keras_resnet.cli import main

if __name__ == "__main__":
    main()
