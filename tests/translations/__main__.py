"""Update webhooks/locale/uk/LC_MESSAGES/django.po from the sources, and compile it.

`--missing` prints the texts without a translation, and changes nothing. `--split DIR` writes them
into several .po files (`--parts`), for several people; `--merge DIR` reads them back.
"""

import argparse
import sys
from pathlib import Path

import django
from django.conf import settings

from tests.translations import catalog
from tests.translations.extraction import every_text


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.translations", description=__doc__)
    parser.add_argument("--missing", action="store_true")
    parser.add_argument("--split", type=Path, metavar="DIR")
    parser.add_argument("--parts", type=int, default=8)
    parser.add_argument("--merge", type=Path, metavar="DIR")
    options = parser.parse_args()
    # Reading templates needs none of the product's settings.
    settings.configure()
    django.setup()
    found = catalog.update(every_text())
    if options.merge:
        catalog.merge(found, options.merge)
    if options.split:
        catalog.split(found, options.split, options.parts)
    missing = [entry for entry in found if not catalog.is_translated(entry)]
    if options.missing:
        for entry in missing:
            print(f"{entry.occurrences[0][0]}: {entry.msgid}")
    else:
        catalog.write(found)
    print(f"{len(found)} texts, {len(missing)} not translated", file=sys.stderr)


if __name__ == "__main__":
    main()
