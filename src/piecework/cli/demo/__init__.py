"""The demo: thousands of real jobs, two workers, one of them killed, and every job accounted for."""
