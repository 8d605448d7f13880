import base64
import sys

from snippet import is_genuine

for line in sys.stdin.read().splitlines():
    secret, webhook_id, timestamp, signatures, body = line.split("\t")
    genuine = is_genuine(secret, webhook_id, timestamp, signatures, base64.b64decode(body))
    print("yes" if genuine else "no")
