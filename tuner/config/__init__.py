"""What was asked for: models, engines, workloads, SLOs and the plan of a study, read and checked."""
