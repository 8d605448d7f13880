"""The options of curl: their names, and which of them take a value.

Source: `curl --help all` and src/tool_getparam.c of curl 7.88.
"""

import re


def names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Short option -> its long name.
SHORT: dict[str, str] = dict(
    re.findall(
        r"(\S) (\S+)",
        """
    X request  H header  d data  u user  G get  F form  T upload-file  I head  A user-agent
    e referer  b cookie  c cookie-jar  m max-time  K config  k insecure  L location  s silent
    S show-error  v verbose  i include  f fail  N buffer  g globoff  o output  O remote-name
    w write-out  D dump-header  x proxy  U proxy-user  E cert  r range  y speed-time
    Y speed-limit  4 ipv4  6 ipv6  0 http1.0  1 tlsv1  n netrc  j junk-session-cookies
    J remote-header-name  R remote-time  # progress-bar  a append  q disable  : next
    B use-ascii  C continue-at  l list-only  M manual  P ftp-port  p proxytunnel  Q quote
    t telnet-option  z time-cond  Z parallel  2 sslv2  3 sslv3  h help  V version
    """,
    )
)
# By their whole names, as browsers and documents write them; later versions are in it too.
_TAKE_A_VALUE = names(
    """
    abstract-unix-socket alt-svc aws-sigv4 cacert capath cert cert-type ciphers config
    connect-timeout connect-to continue-at cookie cookie-jar create-file-mode crlfile curves
    data data-ascii data-binary data-raw data-urlencode delegation dns-interface dns-ipv4-addr
    dns-ipv6-addr dns-servers doh-url dump-header ech egd-file engine etag-compare etag-save
    expect100-timeout form form-string ftp-account ftp-alternative-to-user ftp-method ftp-port
    ftp-ssl-ccc-mode happy-eyeballs-timeout-ms haproxy-clientip header hostpubmd5 hostpubsha256
    hsts interface ip-tos ipfs-gateway json keepalive-cnt keepalive-time key key-type krb
    libcurl limit-rate local-port login-options mail-auth mail-from mail-rcpt max-filesize
    max-redirs max-time netrc-file noproxy oauth2-bearer output output-dir parallel-max pass
    pinnedpubkey preproxy proto proto-default proto-redir proxy proxy-cacert proxy-capath
    proxy-cert proxy-cert-type proxy-ciphers proxy-crlfile proxy-header proxy-key proxy-key-type
    proxy-pass proxy-pinnedpubkey proxy-service-name proxy-tls13-ciphers proxy-tlsauthtype
    proxy-tlspassword proxy-tlsuser proxy-user proxy1.0 pubkey quote random-file range rate
    referer request request-target resolve retry retry-delay retry-max-time sasl-authzid
    service-name sigalgs socks4 socks4a socks5 socks5-gssapi-service socks5-hostname speed-limit
    speed-time stderr telnet-option tftp-blksize time-cond tls-max tls13-ciphers tlsauthtype
    tlspassword tlsuser trace trace-ascii trace-config unix-socket upload-file url url-query
    user user-agent variable vlan-priority write-out
    """
)


def takes_value(name: str) -> bool:
    """Return whether a long option is followed by a value; an unknown one is not."""
    return name in _TAKE_A_VALUE
