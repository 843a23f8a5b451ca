"""What the errors of an object store and of its client mean, in words a person can act on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from ftsec_audit.errors import SourceError

_ACCESS_HINT = "it takes s3:ListBucket on the bucket and s3:GetObject on what is below the prefix"
_CREDENTIALS_HINT = "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
_SETTINGS_HINT = "check the AWS variables and ~/.aws/config"
_ENDPOINT_HINT = "check the connection and AWS_ENDPOINT_URL"
_REFUSED_KEYS = frozenset(
    (
        "ExpiredToken",
        "InvalidAccessKeyId",
        "InvalidToken",
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
        "TokenRefreshRequired",
    )
)
_ELSEWHERE = frozenset(
    ("AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "PermanentRedirect")
)
_BY_CODE: Mapping[str, tuple[str, str]] = {
    "NoSuchBucket": ("no such bucket", "check the spelling and AWS_ENDPOINT_URL"),
    "NoSuchKey": ("the object was removed since it was listed", "run again"),
    "PreconditionFailed": ("the object was replaced since it was listed", "run again"),
    "InvalidObjectState": ("the object is archived and has to be restored first", ""),
}


@dataclass(frozen=True)
class Answer:
    """Of a store that answered with an error."""

    status_code: int
    headers: Mapping[str, str] = field(default_factory=dict)


class RequestFailed(Exception):
    """A request that brought an error, or no answer: then `response` is None and the code says why."""

    def __init__(self, code: str, message: str = "", response: Answer | None = None) -> None:
        super().__init__(code)
        self.code, self.message, self.response = code, message, response


@contextmanager
def asking(endpoint: str) -> Iterator[None]:
    """What the client raises in this block becomes RequestFailed where the same may succeed another time
    or the store has said why not, else SourceError."""
    from botocore import exceptions as aws
    from botocore.parsers import ResponseParserError

    lost = (aws.HTTPClientError, aws.ConnectionError, aws.IncompleteReadError)
    try:
        yield
    except aws.ClientError as error:
        raise _told(error.response) from error
    except lost as error:
        raise RequestFailed(type(error).__name__) from error
    except (aws.NoCredentialsError, aws.PartialCredentialsError) as error:
        raise SourceError("no AWS credentials were found", hint=_CREDENTIALS_HINT) from error
    except ResponseParserError as error:
        raise SourceError(f"{endpoint} did not answer as an object store", hint=_ENDPOINT_HINT) from error
    except (aws.BotoCoreError, ValueError) as error:
        said = " ".join(str(error).split())[:300] or type(error).__name__
        raise SourceError(f"the AWS client says: {said}", hint=_SETTINGS_HINT) from error


def _told(response: Mapping[str, Mapping[str, object]]) -> RequestFailed:
    error, about = response.get("Error", {}), response.get("ResponseMetadata", {})
    status, headers = about.get("HTTPStatusCode"), about.get("HTTPHeaders")
    answer = Answer(
        status if isinstance(status, int) else 0,
        {str(name).title(): str(value) for name, value in headers.items()}
        if isinstance(headers, Mapping)
        else {},
    )
    code, message = str(error.get("Code", ""))[:60], " ".join(str(error.get("Message", "")).split())[:200]
    return RequestFailed(code, message, answer)


@contextmanager
def explained(where: str, endpoint: str) -> Iterator[None]:
    """Turn what `asking` raises into a SourceError about `where`."""
    try:
        yield
    except RequestFailed as error:
        raise _explanation(error, where, endpoint) from error
    except ConnectionError as error:  # of `resumed.fetch`: again and again too little, without an error
        raise SourceError(f"{endpoint}: {error}", where=where, hint="try again later") from error
    except SourceError as error:
        raise SourceError(error.what, where=error.where or where, hint=error.hint) from error


def _explanation(error: RequestFailed, where: str, endpoint: str) -> SourceError:
    if error.response is None:
        return SourceError(f"cannot reach {endpoint} ({error.code})", where=where, hint=_ENDPOINT_HINT)
    status = error.response.status_code
    code = "PreconditionFailed" if status == 412 else error.code
    said = f"{code}: {error.message}" if error.message else code
    if code in _BY_CODE:
        what, hint = _BY_CODE[code]
        return SourceError(what, where=where, hint=hint)
    if code in _ELSEWHERE or status in (301, 307):
        region = error.response.headers.get("X-Amz-Bucket-Region", "")[:40]
        what = f"the bucket is in {f'the region {region}' if region else 'another region'} ({code})"
        return SourceError(what, where=where, hint=f"set AWS_REGION={region}" if region else "set AWS_REGION")
    if code in _REFUSED_KEYS:
        what = f"{endpoint} does not accept the credentials ({said})"
        return SourceError(what, where=where, hint=_CREDENTIALS_HINT)
    if status in (401, 403):
        return SourceError(f"access denied ({said})", where=where, hint=_ACCESS_HINT)
    if status == 416:
        return SourceError("the object is shorter than it was listed", where=where, hint="run again")
    hint = "try again later" if status >= 500 else _ENDPOINT_HINT
    return SourceError(f"{endpoint} failed (HTTP {status}, {said})", where=where, hint=hint)
