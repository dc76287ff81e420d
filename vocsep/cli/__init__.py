"""The `vocsep` command, one file per command."""
