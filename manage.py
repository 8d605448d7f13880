#!/usr/bin/env python
"""Django's command line for this project."""

import contextlib
import os
import sys

from django.core.exceptions import ImproperlyConfigured


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    if sys.argv[1:2] == ["run"]:
        from config.environment import prepare

        prepare(sys.argv[2:])
    from django.core.management import execute_from_command_line
    from django.db import DatabaseError, DataError, IntegrityError

    try:
        execute_from_command_line(sys.argv)
    except DatabaseError as error:
        if isinstance(error, DataError | IntegrityError) or "--traceback" in sys.argv:
            raise
        from webhooks.models.tables import missing_migrations, older_tables

        # Most often, a table or column is missing because `migrate` did not run.
        problem = ""
        with contextlib.suppress(DatabaseError):
            problem = older_tables()
            if not problem and sys.argv[1] != "migrate":
                problem = missing_migrations()
        sys.exit(problem or f"The database cannot be used: {error}".strip())


if __name__ == "__main__":
    try:
        main()
    except ImproperlyConfigured as error:
        sys.exit(f"The settings cannot be used. {error}")
    except KeyboardInterrupt:
        # The exit status of a shell after Ctrl-C.
        sys.exit(130)
    except BrokenPipeError:
        # The reader, such as `head`, closed the pipe; write nothing more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
