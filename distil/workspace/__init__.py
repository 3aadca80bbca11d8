"""What every stage shares: its folder and files, the machine, statistics, plots."""
