"""Bring webhooks/locale/uk/LC_MESSAGES/django.po in step with the sources, and compile it.

`--missing` prints what still wants a translation, and changes nothing.
"""

import argparse
import sys

import django
from django.conf import settings

from tests.translations import catalog
from tests.translations.extracting import every_text


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.translations", description=__doc__)
    parser.add_argument("--missing", action="store_true")
    options = parser.parse_args()
    # Reading templates asks for no setting of ours.
    settings.configure()
    django.setup()
    found = catalog.update(every_text())
    missing = [entry for entry in found if not catalog.is_translated(entry)]
    if options.missing:
        for entry in missing:
            print(f"{entry.occurrences[0][0]}: {entry.msgid}")
    else:
        catalog.write(found)
    print(f"{len(found)} texts, {len(missing)} not translated", file=sys.stderr)


if __name__ == "__main__":
    main()
