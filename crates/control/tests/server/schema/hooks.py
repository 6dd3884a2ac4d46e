"""What schemathesis has to know of the API beyond its OpenAPI document."""

import schemathesis
from schemathesis import GenerationMode

#: The document cannot tell these: they depend on what is there, or on several fields together.
BEYOND_ONE_FIELD = {"not_found", "request_over_limit", "conflict", "immutable", "name_taken", "too_large"}


@schemathesis.hook
def filter_query(context, query):
    """A stream of logs does not end."""
    return not query or str(query.get("follow", "")).lower() != "true"


@schemathesis.check
def refusals_are_what_the_document_cannot_tell(ctx, response, case):
    """What fits the document is refused with 400 or 422 only for what the document cannot tell."""
    if case.meta is None or case.meta.generation.mode != GenerationMode.POSITIVE:
        return
    if response.status_code == 400:
        # Schemathesis sends a number where a header's value is a string of a pattern.
        assert (case.headers or {}).get("If-Match") == "0", response.text
    if response.status_code != 422:
        return
    problem = response.json()
    if problem["code"] == "idempotency_key_reused":
        return
    for fault in problem["faults"]:
        of_model = fault["pointer"].startswith("/model")
        # What a patch makes of `model` depends on the form that it has.
        if case.operation.method == "patch" and of_model:
            continue
        # A number may have more digits than an amount can have.
        amount = fault["pointer"].endswith(("/cpu", "/memory")) and not isinstance(value_at(case.body, fault), str)
        assert amount or fault["code"] in BEYOND_ONE_FIELD, response.text


def value_at(body, fault):
    for field in fault["pointer"].split("/")[1:]:
        body = body[field]
    return body
