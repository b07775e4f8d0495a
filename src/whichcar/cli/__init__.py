"""The command: one sub-command per stage; the only place that parses arguments and prints."""
