"""The HTTP API for programs: `events` accepts events, `health` answers probes."""
