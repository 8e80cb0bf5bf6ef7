"""Who does the tasks: this process, processes of this machine, or a Ray cluster."""
