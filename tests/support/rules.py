"""
The rules that docs/standards.md claims, in our words: number, statement, where it comes from.

A test that shows a rule carries its number in its name: `test_T04_…` shows T4.
"""

import re
from collections import defaultdict
from pathlib import Path

RULES: dict[str, tuple[str, tuple[tuple[int, str, str], ...]]] = {
    "T": (
        "The token endpoint",
        (
            (1, "Only POST is accepted; anything else is 405 and never a token", "RFC 6749 3.2"),
            (2, "Unknown parameters are ignored", "RFC 6749 3.2"),
            (3, "A parameter without a value counts as absent", "RFC 6749 3.2"),
            (4, "A defined parameter sent twice is `invalid_request`, except `resource`", "RFC 6749 3.2"),
            (5, "A missing `grant_type` is `invalid_request`, an unknown one `unsupported_grant_type`", "RFC 6749 5.2"),
            (6, "A grant that the client was not given is `unauthorized_client`", "RFC 6749 5.2"),
            (7, "Nobody gets a token without authenticating", "RFC 6749 4.4"),
            (8, "The password grant is off unless realm and client have it", "RFC 9700 2.4"),
            (9, "Success is 200 JSON with `access_token` and `token_type`", "RFC 6749 5.1"),
            (10, "`expires_in` is there and is the token's life", "RFC 6749 5.1"),
            (11, "`scope` says what was granted", "RFC 6749 5.1"),
            (12, "Answers with a token are never cached", "RFC 6749 5.1"),
            (13, "There are no refresh tokens", "RFC 6749 4.4.3"),
            (14, "Errors are JSON with a code of the list", "RFC 6749 5.2"),
            (15, "A failed Basic authentication is challenged with Basic", "RFC 6749 5.2"),
            (16, "Error texts have only the allowed characters", "RFC 6749 5.2"),
            (17, "A scope that is malformed or not allowed is `invalid_scope`", "RFC 6749 5.2"),
            (18, "A resource that is no absolute URI, or not allowed, is `invalid_target`", "RFC 8707 2"),
            (19, "With `resource`, `aud` is what was granted", "RFC 9068 3, RFC 8707 2.2"),
            (20, "Without `resource`, `aud` is a configured default, never absent", "RFC 9068 3"),
            (21, "Without `resource`, all scopes of a realm have one audience: none asks for another", "RFC 9068 3"),
            (22, "Guessing secrets is limited per client and per address", "RFC 6749 2.3.1"),
            (23, "Generated secrets have at least 128 random bits", "own rule"),
            (24, "Plain HTTP is served on loopback or behind a named proxy only", "RFC 6749 3.2"),
            (25, "Headers that a proxy vouches for are believed from that proxy only", "RFC 9700 4.13"),
            (26, "A client and a user never share a name", "RFC 9700 4.15.1"),
            (27, "No endpoint answers cross-origin requests", "RFC 9700 2.6"),
        ),
    ),
    "C": (
        "Client authentication",
        (
            (1, "More than one method is `invalid_request`", "RFC 6749 2.3"),
            (2, "`client_secret_post` works; credentials in the URL are refused", "RFC 6749 2.3.1"),
            (3, "Basic is form-decoded, whatever the characters", "RFC 6749 2.3.1"),
            (4, "Unknown client and wrong secret are answered alike", "own rule"),
            (5, "A client assertion has `iss` = `sub` = the client id", "RFC 7523 3"),
            (6, "Its `aud` is exactly one value, our issuer", "RFC 7523bis"),
            (7, "An array of that one value is accepted", "RFC 7523bis"),
            (8, "The type `client-authentication+jwt` is accepted and sent, its absence accepted", "RFC 7523bis"),
            (9, "It expires, soon, and is not from the future", "RFC 7523 3"),
            (10, "It is used once", "RFC 7523 3"),
            (11, "Another client's key, HMAC over a public key, and `none` are refused", "RFC 8725 3.1"),
            (12, "A client's key set is fetched from allowed hosts only, bounded", "RFC 8725 3.10"),
            (13, "A client certificate matches by subject or by key", "RFC 8705 2"),
            (14, "Asymmetric methods are offered first", "RFC 9700 2.5"),
        ),
    ),
    "J": (
        "The access token",
        (
            (1, "`typ` is `at+jwt`", "RFC 9068 2.1"),
            (2, "All required claims are there", "RFC 9068 2.2"),
            (3, "`sub` is the client for client credentials", "RFC 9068 2.2"),
            (4, "`scope` is one string (or the realm's declared form)", "RFC 9068 2.2.3"),
            (6, "`iss` is the metadata's issuer, byte for byte", "RFC 8414 3.3"),
            (7, "`jti` never repeats", "RFC 7519 4.1.7"),
            (8, "The signature is 64 bytes with low s", "RFC 7518 3.4"),
            (9, "The signature's nonce is deterministic", "RFC 6979"),
            (10, "A key has one algorithm and one purpose", "RFC 8725 3.1"),
            (11, "No token outlives the publication of its key", "own rule"),
            (12, "No secret is copied into a claim", "own rule"),
            (13, "There is one audience by default", "RFC 9068 3"),
        ),
    ),
    "V": (
        "Validation",
        (
            (1, "Only the algorithms configured for the issuer are tried", "RFC 8725 3.1"),
            (2, "`alg` is the one of the key", "RFC 8725 3.1"),
            (3, "`none` and HMAC are refused", "RFC 9068 4"),
            (4, "`typ` is that of an access token", "RFC 9068 4"),
            (5, "The key belongs to the issuer that the token names", "RFC 8725 3.8"),
            (6, "`aud` names this service", "RFC 9068 4"),
            (7, "`exp` is a date in the future", "RFC 9068 4"),
            (8, "`nbf` and `iat` are not in the future beyond the leeway", "RFC 7519 4.1.5"),
            (9, "A character outside the alphabet is refused before parsing", "own rule"),
            (10, "A non-canonical encoding is refused", "RFC 7515 2"),
            (11, "Duplicate members are refused", "RFC 7515 4"),
            (12, "`crit` is refused: we know no extension", "RFC 7515 4.1.11"),
            (13, "`jku`, `jwk`, `x5u`, `x5c` are never used", "RFC 8725 3.10"),
            (14, "A `kid` of any content looks up nothing but the key map", "RFC 8725 3.10"),
            (15, "JSON is UTF-8", "RFC 8725 3.7"),
            (16, "Nested tokens are refused", "RFC 8725 3.3"),
            (17, "Keys are on the curve, signatures of the right length, r and s in range", "RFC 7518 3.4"),
            (18, "Our middleware takes no token from the query", "RFC 6750 5.3"),
            (19, "A token sent twice is `invalid_request`", "RFC 6750 2"),
            (20, "The scheme is accepted in any case", "RFC 9110 11.1"),
            (21, "No token: a challenge without an error code", "RFC 6750 3.1"),
            (22, "A bad token is 401, a missing scope 403", "RFC 6750 3.1"),
            (23, "A challenge names each attribute once, of allowed characters", "RFC 6750 3"),
            (24, "Scopes are compared whole", "RFC 6749 3.3"),
            (25, "A certificate-bound token needs that certificate; an unknown `cnf` is refused", "RFC 8705 3"),
            (27, "Revocation is judged after the other checks, and at every use", "own rule"),
            (28, "A list beyond its age limit means 503 and not ready", "own rule"),
            (29, "Good keys survive a failed refresh", "own rule"),
            (30, "The client code never parses the token", "RFC 6749 1.4"),
            (31, "Tokens reach no log and no exception", "own rule"),
        ),
    ),
    "I": (
        "Introspection",
        (
            (1, "POST with a form only", "RFC 7662 2.1"),
            (2, "A caller that is not authenticated is refused", "RFC 7662 2.1"),
            (3, "Wrong credentials are 401", "RFC 7662 2.3"),
            (4, "Being a client is not enough: a scope is needed", "RFC 7662 4"),
            (5, "Callers are throttled", "RFC 7662 4"),
            (6, "Every token that is not good gives the same bytes", "RFC 7662 2.2"),
            (7, "The cases cannot be told apart", "RFC 7662 2.2"),
            (8, "A `token_type_hint` changes nothing", "RFC 7662 2.1"),
            (9, "An active answer has all members", "RFC 7662 2.2"),
            (10, "Scope is narrowed to the caller where configured", "RFC 7662 2.2"),
            (11, "Answers are not cached", "RFC 7662 4"),
            (12, "The signed answer has its type and members", "RFC 9701 5"),
            (13, "It has no top-level `sub` or `exp`", "RFC 9701 5"),
            (14, "Inactive in signed form says nothing more", "RFC 9701 5"),
            (15, "It is refused as an access token", "RFC 9701 8"),
            (16, "A revocation is seen within the bound", "own rule"),
        ),
    ),
    "R": (
        "Revocation",
        (
            (1, "POST, and the client authenticates", "RFC 7009 2.1"),
            (2, "Another client's token stays valid", "RFC 7009 2.1"),
            (3, "An unknown or dead token is 200", "RFC 7009 2.2"),
            (4, "An unknown hint is ignored", "RFC 7009 2.1"),
            (5, "A missing token is `invalid_request`", "RFC 7009 2.2.1"),
            (6, "Not on durable storage: 503, never 200", "RFC 7009 2.2.1"),
            (7, "After 2xx it is enforced within the bound", "RFC 7009 2.1"),
            (8, "No other spelling of a token escapes", "own rule"),
            (9, "A token of the same second does not escape", "own rule"),
            (10, "A claims rule matches by names and values, exactly", "own rule"),
            (11, "Of several cut-offs the latest counts", "own rule"),
            (12, "An entry is kept for as long as it can matter", "own rule"),
            (13, "Rules and global revocations need more than self-revocation, and are audited", "own rule"),
            (14, "A restarted validator is not ready before it has loaded everything", "own rule"),
            (15, "A list that is forged, older or broken is refused, and the last good one kept", "own rule"),
            (16, "Taking a revocation back is a record of its own", "own rule"),
            (17, "A list is published also when nothing changed", "own rule"),
        ),
    ),
    "M": (
        "Metadata and keys",
        (
            (1, "Metadata stand where RFC 8414 says", "RFC 8414 3"),
            (2, "Our client refuses metadata of another issuer", "RFC 8414 3.3"),
            (3, "No member is an empty array", "RFC 8414 3.2"),
            (4, "Algorithms are listed where assertions are offered", "RFC 8414 2"),
            (5, "A key set has public members only, each key its `kid`, `use`, `alg`", "RFC 7517 4"),
            (6, "A key is published before it signs", "own rule"),
            (7, "A key stays published until its last token has expired", "own rule"),
            (8, "The key set's cache time is bounded and jittered", "own rule"),
            (9, "Protected-resource metadata name the resource that was asked", "RFC 9728 3.3"),
            (10, "A 401 can name them", "RFC 9728 5.1"),
        ),
    ),
    "X": (
        "Exchange and federation",
        (
            (1, "Subject token and its type are required, actor types paired", "RFC 8693 2.1"),
            (2, "The answer names the issued type", "RFC 8693 2.2.1"),
            (3, "A target that is not allowed is `invalid_target`", "RFC 8693 2.2.2"),
            (4, "Scope only narrows", "own rule"),
            (5, "The result never outlives the subject token", "own rule"),
            (6, "A platform token is of an allowed issuer and for us alone", "own rule"),
            (7, "A trust rule has conditions on claims", "own rule"),
            (8, "ES256, ES384 and RS256 are read as configured", "own rule"),
            (9, "An assertion is used once, where the rule says so", "own rule"),
        ),
    ),
}  # fmt: skip

_TEST = re.compile(r"def (test_([A-Z])(\d\d?)(?:_|\b)\w*)")


def tests_by_rule(root: Path) -> dict[str, list[str]]:
    """Return the names of the tests below *root* that carry a rule's number, by rule."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for path in sorted(root.rglob("test_*.py")):
        for name, group, number in _TEST.findall(path.read_text()):
            found[f"{group}{int(number)}"].append(f"{path.relative_to(root.parent).as_posix()}::{name}")
    return found


def rules_page(root: Path) -> str:
    """Return the table of docs/standards.md: every rule with the first test that shows it, and how many more."""
    shown = tests_by_rule(root)
    lines: list[str] = []
    for group, (title, rules) in RULES.items():
        lines += ["", f"### {title}", "", "| rule | | from | shown by |", "|---|---|---|---|"]
        for number, statement, source in rules:
            tests = shown.get(f"{group}{number}", [])
            more = f" and {len(tests) - 1} more" if len(tests) > 1 else ""
            link = f"[{tests[0].split('::')[1]}](../{tests[0].split('::')[0]}){more}" if tests else "**not shown**"
            lines.append(f"| {group}{number} | {statement} | {source} | {link} |")
    return "\n".join([*lines, ""])
