"""The node's HTTP port: the reading list for people, `/healthz` and `/metrics` for machines. It only reads."""
