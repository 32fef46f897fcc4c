"""The load generator: offers a workload to a server over HTTP and keeps raw time stamps."""
