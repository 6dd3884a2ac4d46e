"""What schemathesis has to know of the API beyond its OpenAPI document."""

import schemathesis
from schemathesis import GenerationMode

#: The document cannot tell these: they depend on what is there, or on several fields together.
BEYOND_ONE_FIELD = {"not_found", "request_over_limit", "conflict", "name_taken", "too_large"}


@schemathesis.hook
def filter_query(context, query):
    """A stream of logs does not end."""
    return not query or str(query.get("follow", "")).lower() != "true"


@schemathesis.check
def refusals_are_about_more_than_one_field(ctx, response, case):
    """A body that fits the document is refused with 422 only for what the document cannot tell."""
    if response.status_code != 422 or case.meta is None or case.meta.generation.mode != GenerationMode.POSITIVE:
        return
    problem = response.json()
    if problem["code"] == "idempotency_key_reused":
        return
    for fault in problem["faults"]:
        # What a patch makes of `model` depends on the form that it has.
        patched = case.operation.method == "patch" and fault["pointer"].startswith("/model")
        assert patched or fault["code"] in BEYOND_ONE_FIELD, response.text
