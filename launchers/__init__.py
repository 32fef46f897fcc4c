"""Everything that starts, watches, stops or stands in for an engine's server."""
