"""What Kotak costs: the mailbox workload by real processes, measured point by point."""
