#!/usr/bin/env python3
"""A small S3 client for tests, of Python's standard library only.

It shares no code with the program under test, so that it can judge what is in
a bucket, and damage it.  Keys come from AWS_ACCESS_KEY_ID and
AWS_SECRET_ACCESS_KEY, else those of rgw.sh.

    s3.py ENDPOINT create BUCKET
    s3.py ENDPOINT versioning BUCKET        keep old versions from now on
    s3.py ENDPOINT list BUCKET [PREFIX]     "SIZE KEY" lines
    s3.py ENDPOINT get BUCKET KEY           to standard output
    s3.py ENDPOINT put BUCKET KEY           from standard input
    s3.py ENDPOINT delete BUCKET KEY
"""
import base64
import datetime
import hashlib
import hmac
import http.client
import os
import sys
import urllib.parse
import xml.etree.ElementTree as ElementTree

REGION = "us-east-1"


class S3Error(Exception):
    """A reply other than success; .status, .body."""

    def __init__(self, status, body):
        super().__init__(f"HTTP status {status}: {body[:300]!r}")
        self.status = status
        self.body = body


def _hmac(key, text):
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


class Client:
    """One endpoint, one bucket; a connection per request."""

    def __init__(self, endpoint, bucket):
        parts = urllib.parse.urlsplit(endpoint)
        self.host = parts.netloc
        self.connection = {
            "http": http.client.HTTPConnection,
            "https": http.client.HTTPSConnection,
        }[parts.scheme]
        self.bucket = bucket
        self.access_key = os.environ.get("AWS_ACCESS_KEY_ID", "testak")
        self.secret_key = os.environ.get("AWS_SECRET_ACCESS_KEY", "testsecretkey1")

    def _signed(self, method, path, query, body, headers):
        time = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
        scope = f"{time[:8]}/{REGION}/s3/aws4_request"
        digest = hashlib.sha256(body).hexdigest()
        headers = dict(headers, host=self.host)
        headers.update({"x-amz-date": time, "x-amz-content-sha256": digest})
        names = ";".join(sorted(headers))
        lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
        canonical = "\n".join([method, path, query, lines, names, digest])
        hashed = hashlib.sha256(canonical.encode()).hexdigest()
        key = ("AWS4" + self.secret_key).encode()
        for part in (time[:8], REGION, "s3", "aws4_request"):
            key = _hmac(key, part)
        text = "\n".join(["AWS4-HMAC-SHA256", time, scope, hashed])
        headers["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={self.access_key}/{scope}, "
            f"SignedHeaders={names}, Signature={_hmac(key, text).hex()}"
        )
        return headers

    def request(self, method, key=None, params=None, body=b"", headers=None):
        """(headers in lower case, body) of a success, else S3Error."""
        quote = urllib.parse.quote
        path = "/" + quote(self.bucket, safe="") + ("" if key is None else "/" + quote(key))
        pairs = sorted((params or {}).items())
        query = "&".join(f"{quote(n, safe='')}={quote(v, safe='')}" for n, v in pairs)
        signed = self._signed(method, path, query, body, headers or {})
        connection = self.connection(self.host, timeout=30)
        try:
            connection.request(method, path + ("?" + query if query else ""), body, signed)
            reply = connection.getresponse()
            data = reply.read()
            if not 200 <= reply.status < 300:
                raise S3Error(reply.status, data)
            return {n.lower(): v for n, v in reply.getheaders()}, data
        finally:
            connection.close()

    def create(self):
        """Make the bucket; it may exist."""
        try:
            self.request("PUT")
        except S3Error as error:
            if b"BucketAlready" not in error.body:
                raise

    def versioning(self):
        body = b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"
        self.request("PUT", params={"versioning": ""}, body=body)

    def get(self, key):
        return self.request("GET", key)[1]

    def put(self, key, body, **headers):
        md5 = base64.b64encode(hashlib.md5(body).digest()).decode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.request("PUT", key, body=body, headers=dict(named, **{"content-md5": md5}))

    def head(self, key):
        return self.request("HEAD", key)[0]

    def delete(self, key):
        self.request("DELETE", key)

    def list(self, prefix=""):
        """All (key, size) that begin with prefix, in the store's order."""
        found, token = [], None
        while True:
            params = {"list-type": "2", "prefix": prefix}
            if token:
                params["continuation-token"] = token
            page = ElementTree.fromstring(self.request("GET", params=params)[1])
            for item in page.findall("{*}Contents"):
                found.append((item.findtext("{*}Key"), int(item.findtext("{*}Size"))))
            token = page.findtext("{*}NextContinuationToken")
            if page.findtext("{*}IsTruncated") != "true" or not token:
                return found


def main(arguments):
    if len(arguments) < 3:
        sys.exit(__doc__)
    endpoint, verb, bucket, *rest = arguments
    client = Client(endpoint, bucket)
    if verb in ("create", "versioning") and not rest:
        getattr(client, verb)()
    elif verb == "list" and len(rest) <= 1:
        for key, size in client.list(*rest):
            print(size, key)
    elif verb == "get" and len(rest) == 1:
        sys.stdout.buffer.write(client.get(rest[0]))
    elif verb == "put" and len(rest) == 1:
        client.put(rest[0], sys.stdin.buffer.read())
    elif verb == "delete" and len(rest) == 1:
        client.delete(rest[0])
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
