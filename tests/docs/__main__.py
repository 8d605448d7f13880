"""Write the generated parts of docs/: the event catalogue and the third-party packages."""

import argparse
import os

import django


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.docs", description=__doc__)
    parser.parse_args()
    # The settings need keys, but nothing is stored; event types of a local .env are not documented.
    os.environ |= {
        "DJANGO_SETTINGS_MODULE": "config.settings",
        "ENV_FILE": os.devnull,
        "SECRET_KEY": "docs",
        "FIELD_ENCRYPTION_KEY": "ZG9jcy1kb2NzLWRvY3MtZG9jcy1kb2NzLWRvY3MtMzI=",
        "WEBHOOKS_EVENT_TYPES": "",
        "LANGUAGE_CODE": "en",
    }
    django.setup()
    # Imported here, because the catalogue reads the settings.
    from tests.docs import events, third_party

    for page in (events.PAGE, third_party.PAGE):
        page.write()
        print(page.path.name)


if __name__ == "__main__":
    main()
