"""Training stages; each will be a file of its own that reuses `prima_core` unchanged."""
