"""Health of hosts: active checks, outlier detection, and the reports of agents."""
