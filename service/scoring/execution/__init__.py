"""Run a job: plan, ledger, workspace and output."""
