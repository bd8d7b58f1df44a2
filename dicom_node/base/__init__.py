"""What every stage rests on: configuration, errors, events, value types. Imports nothing else of this package."""
