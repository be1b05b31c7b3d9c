"""A token issuer for tests: real keys, real signatures, tokens that are wrong in every way."""

import base64
import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

ISSUER = "https://issuer.example"
AUDIENCE = "cordon"
_WRITERS: dict[str, Any] = {"EdDSA": OKPAlgorithm, "RS256": RSAAlgorithm, "ES256": ECAlgorithm}


class Issuer:
    """One key per algorithm; `kid` is the algorithm's name."""

    def __init__(self, suffix: str = "") -> None:
        self.suffix = suffix
        self.keys: dict[str, Any] = {
            "EdDSA": ed25519.Ed25519PrivateKey.generate(),
            "RS256": rsa.generate_private_key(65_537, 2_048),
            "ES256": ec.generate_private_key(ec.SECP256R1()),
        }

    def jwks(self, *algorithms: str) -> bytes:
        """The public keys, all without arguments."""
        found = []
        for name in algorithms or self.keys:
            public = _WRITERS[name].to_jwk(self.keys[name].public_key(), as_dict=True)
            found.append(public | {"kid": name + self.suffix, "use": "sig"})
        return json.dumps({"keys": found}).encode()

    def write(self, path: Path, *algorithms: str) -> Path:
        path.write_bytes(self.jwks(*algorithms))
        return path

    def claims(self, now_s: float, **changes: Any) -> dict[str, Any]:
        """Claims of a good token; `None` removes one."""
        given = {
            "iss": ISSUER, "aud": AUDIENCE, "sub": "ada", "iat": int(now_s), "exp": int(now_s) + 600,
            "tenant": "demo", "roles": ["analyst"],
        }  # fmt: skip
        return {k: v for k, v in (given | changes).items() if v is not None}

    def token(self, now_s: float, algorithm: str = "EdDSA", **changes: Any) -> str:
        """A signed token."""
        headers = {"kid": algorithm + self.suffix}
        return jwt.encode(self.claims(now_s, **changes), self.keys[algorithm], algorithm, headers=headers)

    def unsigned(self, now_s: float, kid: str = "EdDSA") -> str:
        """`alg=none`, without a signature."""
        return f"{_part({'alg': 'none', 'kid': kid})}.{_part(self.claims(now_s))}."

    def confused(self, now_s: float, kid: str = "RS256") -> str:
        """HS256 with the text of the public key as the secret: what a naive verifier takes for RS256's."""
        public = self.keys["RS256"].public_key()
        secret = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        signed = f"{_part({'alg': 'HS256', 'kid': kid})}.{_part(self.claims(now_s))}"
        return f"{signed}.{_text(hmac.digest(secret, signed.encode(), hashlib.sha256))}"


def _part(value: object) -> str:
    return _text(json.dumps(value).encode())


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
