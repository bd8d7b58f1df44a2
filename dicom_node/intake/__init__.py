"""Receiving: associations in, durable files in the spool, rows in the registry. Imports neither torch nor MONAI."""
