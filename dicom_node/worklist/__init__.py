"""From a result to a reading priority."""
