"""Value types, splits and the training loop that all of training shares."""
