"""The status page: waiting deliveries, slow receivers, expiring grants."""
