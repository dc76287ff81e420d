"""Prefect's server and worker on this machine: embedded for one command, or always on."""
