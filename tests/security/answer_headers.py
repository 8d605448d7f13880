"""The security headers that every response of the site must have."""

from typing import Any

from pytest_django import Settings

YEAR = 365 * 24 * 3600
EXACT = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": (
        "accelerometer=(), autoplay=(), camera=(), clipboard-write=(self), display-capture=(), "
        "encrypted-media=(), fullscreen=(), geolocation=(), gyroscope=(), magnetometer=(), "
        "microphone=(), midi=(), payment=(), picture-in-picture=(), publickey-credentials-get=(), "
        "screen-wake-lock=(), usb=(), xr-spatial-tracking=()"
    ),
    "Strict-Transport-Security": f"max-age={YEAR}; includeSubDomains; preload",
}
# The callback's URL holds a code: no other page may learn it, not even one of ours.
REFERRERS = {"same-origin", "no-referrer"}


def as_in_production(settings: Settings) -> None:
    settings.SECURE_HSTS_SECONDS = YEAR
    settings.SECURE_HSTS_INCLUDE_SUBDOMAINS = settings.SECURE_HSTS_PRELOAD = True


def missing(answer: Any) -> dict[str, str | None]:
    """Return the headers of a response that are missing or wrong."""
    wrong = {name: answer.get(name) for name, text in EXACT.items() if answer.get(name) != text}
    if not answer.get("Cache-Control"):
        wrong["Cache-Control"] = None
    if answer.get("Referrer-Policy") not in REFERRERS:
        wrong["Referrer-Policy"] = answer.get("Referrer-Policy")
    if not is_strict(answer.get("Content-Security-Policy", "")):
        wrong["Content-Security-Policy"] = answer.get("Content-Security-Policy")
    return wrong


def is_strict(policy: str) -> bool:
    """Return whether a policy lets a page run and show nothing but this site's own files."""
    rules = {words[0]: set(words[1:]) for one in policy.split(";") if (words := one.split())}
    nothing, own = {"'none'"}, {"'self'"}
    return (
        all(rules.get(one) == nothing for one in ("default-src", "base-uri", "frame-ancestors"))
        and all(rules.get(one) == own for one in ("script-src", "style-src", "connect-src"))
        and "unsafe" not in policy
        and "*" not in policy.replace("127.0.0.1:*", "").replace("localhost:*", "")
    )
