"""The HTTP API for programs: `events` accepts events, `health` responds to probes."""
