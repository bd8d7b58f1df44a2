"""Studies as jobs: the registry of their state, closing, queueing, and the worker that runs the model on them."""
