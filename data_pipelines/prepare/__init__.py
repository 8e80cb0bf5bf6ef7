"""Sources -> shards on disk: settings, the run, its tasks, and what a task builds."""
