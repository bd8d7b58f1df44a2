"""What the rest of `prima_core` rests on: configuration, value types, errors, attention."""
