"""The options of curl: their names, which of them take a value, and how they may be written.

Source: `curl --help all` and src/tool_getparam.c of curl 7.88. Knows no meaning of any option.
"""

from bisect import bisect_left
from dataclasses import dataclass


def names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Short option -> its long name.
SHORT = {
    "X": "request",
    "H": "header",
    "d": "data",
    "u": "user",
    "G": "get",
    "F": "form",
    "T": "upload-file",
    "I": "head",
    "A": "user-agent",
    "e": "referer",
    "b": "cookie",
    "c": "cookie-jar",
    "m": "max-time",
    "K": "config",
    "k": "insecure",
    "L": "location",
    "s": "silent",
    "S": "show-error",
    "v": "verbose",
    "i": "include",
    "f": "fail",
    "N": "buffer",
    "g": "globoff",
    "o": "output",
    "O": "remote-name",
    "w": "write-out",
    "D": "dump-header",
    "x": "proxy",
    "U": "proxy-user",
    "E": "cert",
    "r": "range",
    "y": "speed-time",
    "Y": "speed-limit",
    "4": "ipv4",
    "6": "ipv6",
    "0": "http1.0",
    "1": "tlsv1",
    "n": "netrc",
    "j": "junk-session-cookies",
    "J": "remote-header-name",
    "R": "remote-time",
    "#": "progress-bar",
    "a": "append",
    "q": "disable",
    ":": "next",
    "B": "use-ascii",
    "C": "continue-at",
    "l": "list-only",
    "M": "manual",
    "P": "ftp-port",
    "p": "proxytunnel",
    "Q": "quote",
    "t": "telnet-option",
    "z": "time-cond",
    "Z": "parallel",
    "2": "sslv2",
    "3": "sslv3",
    "h": "help",
    "V": "version",
}
_TAKE_A_VALUE = names(
    """
    abstract-unix-socket alt-svc aws-sigv4 cacert capath cert cert-type ciphers config
    connect-timeout connect-to continue-at cookie cookie-jar create-file-mode crlfile curves data
    data-ascii data-binary data-raw data-urlencode delegation dns-interface dns-ipv4-addr
    dns-ipv6-addr dns-servers doh-url dump-header egd-file engine etag-compare etag-save
    expect100-timeout form form-string ftp-account ftp-alternative-to-user ftp-method ftp-port
    ftp-ssl-ccc-mode happy-eyeballs-timeout-ms header hostpubmd5 hostpubsha256 hsts interface json
    keepalive-time key key-type krb libcurl limit-rate local-port login-options mail-auth
    mail-from mail-rcpt max-filesize max-redirs max-time netrc-file noproxy oauth2-bearer output
    output-dir parallel-max pass pinnedpubkey preproxy proto proto-default proto-redir proxy
    proxy-cacert proxy-capath proxy-cert proxy-cert-type proxy-ciphers proxy-crlfile proxy-header
    proxy-key proxy-key-type proxy-pass proxy-pinnedpubkey proxy-service-name proxy-tls13-ciphers
    proxy-tlsauthtype proxy-tlspassword proxy-tlsuser proxy-user proxy1.0 pubkey quote random-file
    range rate referer request request-target resolve retry retry-delay retry-max-time
    sasl-authzid service-name socks4 socks4a socks5 socks5-gssapi-service socks5-hostname
    speed-limit speed-time stderr telnet-option tftp-blksize time-cond tls-max tls13-ciphers
    tlsauthtype tlspassword tlsuser trace trace-ascii unix-socket upload-file url url-query user
    user-agent write-out
    """
)
# Without “no-”, with which each of them can be turned off.
_BOOLEANS = names(
    """
    alpn anyauth append basic buffer cert-status clobber compressed compressed-ssh create-dirs
    crlf digest disable disable-eprt disable-epsv disallow-username-in-url doh-cert-status
    doh-insecure eprt epsv fail fail-early fail-with-body false-start form-escape ftp-create-dirs
    ftp-pasv ftp-pret ftp-skip-pasv-ip ftp-ssl-ccc ftp-ssl-control get globoff haproxy-protocol
    head help http0.9 http1.0 http1.1 http2 http2-prior-knowledge http3 http3-only
    ignore-content-length include insecure ipv4 ipv6 junk-session-cookies keepalive list-only
    location location-trusted mail-rcpt-allowfails manual metalink negotiate netrc netrc-optional
    next npn ntlm ntlm-wb parallel parallel-immediate path-as-is post301 post302 post303
    progress-bar progress-meter proxy-anyauth proxy-basic proxy-digest proxy-insecure
    proxy-negotiate proxy-ntlm proxy-ssl-allow-beast proxy-ssl-auto-client-cert proxy-tlsv1
    proxytunnel raw remote-header-name remote-name remote-name-all remote-time remove-on-error
    retry-all-errors retry-connrefused sasl-ir sessionid show-error silent socks5-basic
    socks5-gssapi socks5-gssapi-nec ssl ssl-allow-beast ssl-auto-client-cert ssl-no-revoke
    ssl-reqd ssl-revoke-best-effort sslv2 sslv3 styled-output suppress-connect-headers
    tcp-fastopen tcp-nodelay tftp-no-options tlsv1 tlsv1.0 tlsv1.1 tlsv1.2 tlsv1.3 tr-encoding
    trace-time use-ascii verbose version xattr
    """
)
# Of later versions; only their whole names count, so that abbreviations mean what they meant.
_LATER = names(
    """
    ca-native ech haproxy-clientip ip-tos ipfs-gateway keepalive-cnt mptcp
    proxy-ca-native proxy-http2 sigalgs skip-existing tls-earlydata trace-config trace-ids
    variable vlan-priority
    """
)
_LATER_BOOLEANS = names(
    """
    ca-native mptcp proxy-ca-native proxy-http2 skip-existing tls-earlydata trace-ids
    """
)
_ALL = sorted(_TAKE_A_VALUE | _BOOLEANS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """A long option. `name` is as it was written for one that curl does not know."""

    name: str
    takes_value: bool = False
    is_turned_off: bool = False


def find(written: str) -> Option:
    """Return the option of a name without its dashes: whole, a clear beginning, or with “no-”."""
    if written in _LATER:
        return Option(name=written, takes_value=written not in _LATER_BOOLEANS)
    if written.startswith("no-") and written[3:] in _BOOLEANS:
        return Option(name=written[3:], is_turned_off=True)
    first = bisect_left(_ALL, written)
    found = [one for one in _ALL[first : first + 2] if one.startswith(written)]
    if len(found) == 1 or written in found:
        return Option(name=found[0], takes_value=found[0] in _TAKE_A_VALUE)
    return Option(name=written)
