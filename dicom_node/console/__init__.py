"""What the node tells machines over HTTP on loopback: `/healthz` and Prometheus `/metrics`."""
