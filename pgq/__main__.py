"""``python -m pgq pgq_worker``: Django's command line, in a project that the function of PGQ_SETUP sets up."""

from django.core.management import execute_from_command_line

from pgq.pool import boot

if __name__ == "__main__":
    boot.run_setup()
    execute_from_command_line()
