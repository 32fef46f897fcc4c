"""From a workload's name and a seed to a fixed list of requests."""
