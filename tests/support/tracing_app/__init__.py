"""An app that sets up OpenTelemetry as a project does: in ready(), so in each process and before workers are forked."""
