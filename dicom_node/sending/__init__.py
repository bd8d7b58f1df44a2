"""What leaves the node: routes, the outbox, and one attempt of a C-STORE."""
