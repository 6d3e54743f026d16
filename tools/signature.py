"""Signatures of webhooks: HMAC-SHA256 over the raw body, written the way four kinds of senders write it.

=============  =====================================================  ==========================================
style          signed                                                 sent as
=============  =====================================================  ==========================================
``standard``   ``id.timestamp.body``, the secret is ``whsec_<base64>``  ``webhook-id``, ``webhook-timestamp``,
                                                                      ``webhook-signature: v1,<base64> v1,…``
``github``     ``body``                                               ``X-Hub-Signature-256: sha256=<hex>``
``stripe``     ``timestamp.body``                                     ``Stripe-Signature: t=…,v1=<hex>,v1=…``
``shopify``    ``body``                                               ``X-Shopify-Hmac-Sha256: <base64>``
=============  =====================================================  ==========================================

Sources: the specification of Standard Webhooks 1.0, and the webhook documentation of GitHub, Stripe and Shopify.
"""

import base64
import binascii
import hmac
import re

#: how far a sender's clock may be off, in seconds
TOLERANCE = 300
STYLES = ("standard", "github", "stripe", "shopify")
PREFIX = "whsec_"
#: the header that the signature is in
SIGNATURE_HEADERS = {
    "standard": "webhook-signature",
    "github": "X-Hub-Signature-256",
    "stripe": "Stripe-Signature",
    "shopify": "X-Shopify-Hmac-Sha256",
}


class SignatureError(ValueError):
    """A signature is not valid; ``reason`` is ``missing``, ``wrong`` or ``expired``."""

    def __init__(self, reason):
        super().__init__(reason)
        self.reason = reason


def parse_secret(style, secret):
    """Return the key that a secret stands for.

    :param str style: one of ``STYLES``
    :param str secret: as the sender shows it
    :rtype: bytes
    :raises ValueError: if it is empty, or no base64 where the style wants that
    """
    if not secret:
        raise ValueError("The secret is empty")
    if style != "standard":
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except binascii.Error as exc:
        raise ValueError("The secret is no base64") from exc


def sign(style, secrets, body, message_id="", timestamp=0):
    """Return the headers that sign a message.

    :param str style: one of ``STYLES``
    :param secrets: one secret, or several while it is rotated; styles with one signature take the first
    :type secrets: str | Sequence[str]
    :param bytes body: the body exactly as it is sent
    :param str message_id: stays the same over all attempts; part of what the style ``standard`` signs
    :param int timestamp: of this attempt, in seconds since 1970; signed where the style has one
    :rtype: dict[str, str]
    :raises ValueError: for a secret that is not of the style
    """
    secrets = [secrets] if isinstance(secrets, str) else secrets
    signatures = [_compute(style, secret, message_id, timestamp, body) for secret in secrets]
    if style == "standard":
        return {
            "webhook-id": message_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
        }
    if style == "stripe":
        return {"Stripe-Signature": ",".join([f"t={timestamp}", *(f"v1={signature}" for signature in signatures)])}
    if style == "shopify":
        message = {"X-Shopify-Webhook-Id": message_id} if message_id else {}
        return message | {"X-Shopify-Hmac-Sha256": signatures[0]}
    message = {"X-GitHub-Delivery": message_id} if message_id else {}
    return message | {"X-Hub-Signature-256": f"sha256={signatures[0]}"}


def verify(style, secrets, headers, body, now):
    """Check the signature of a received message, in constant time.

    :param str style: one of ``STYLES``
    :param secrets: the secrets any of which may have signed it
    :type secrets: Iterable[str]
    :param headers: a mapping that ignores case
    :param bytes body: the body exactly as it was received
    :param float now: seconds since 1970
    :return: what tells this message from all others: its id, or else its signature with the first secret
    :rtype: str
    :raises SignatureError: if the signature is missing or wrong, or its time is too far from ``now``
    """
    message_id, timestamp, received = READERS[style](headers)
    if not received or (not body and timestamp is None):  # over nothing at all, a signature never changes
        raise SignatureError("missing")
    expected = [_compute(style, secret, message_id, timestamp, body) for secret in secrets]
    given = [signature.encode(errors="surrogateescape") for signature in received]
    if not any(hmac.compare_digest(one, other.encode()) for one in given for other in expected):
        raise SignatureError("wrong")
    if timestamp is not None and abs(now - int(timestamp)) > TOLERANCE:
        raise SignatureError("expired")
    return message_id or expected[0]  # not one of those received: whoever repeats them could put others first


def _read_standard(headers):
    message_id, timestamp = headers.get("webhook-id", ""), _timestamp(headers.get("webhook-timestamp", ""))
    pairs = [part.partition(",") for part in headers.get("webhook-signature", "").split()]
    signatures = [signature for version, _, signature in pairs if version == "v1"]
    return message_id, timestamp, signatures if message_id and timestamp else []


def _read_stripe(headers):
    pairs = [part.strip().partition("=") for part in headers.get("Stripe-Signature", "").split(",")]
    timestamp = _timestamp(next((value for key, _, value in pairs if key == "t"), ""))
    return "", timestamp, [value for key, _, value in pairs if key == "v1"] if timestamp else []


def _read_github(headers):
    algorithm, _, signature = headers.get("X-Hub-Signature-256", "").partition("=")
    received = [signature] if algorithm == "sha256" and signature else []
    return headers.get("X-GitHub-Delivery", ""), None, received


def _read_shopify(headers):
    signature = headers.get("X-Shopify-Hmac-Sha256", "")
    return headers.get("X-Shopify-Webhook-Id", ""), None, [signature] if signature else []


READERS = {
    "standard": _read_standard,
    "github": _read_github,
    "stripe": _read_stripe,
    "shopify": _read_shopify,
}


def _timestamp(text):
    """Keep a timestamp as it was written, because that is what was signed."""
    return text if re.fullmatch(r"[0-9]{1,12}", text) else ""


def _compute(style, secret, message_id, timestamp, body):
    """Return the signature of a message, as the style writes it."""
    prefix = {"standard": f"{message_id}.{timestamp}.", "stripe": f"{timestamp}."}.get(style, "")
    message = prefix.encode(errors="surrogateescape") + body
    digest = hmac.digest(parse_secret(style, secret), message, "sha256")
    return base64.b64encode(digest).decode() if style in ("standard", "shopify") else digest.hex()
