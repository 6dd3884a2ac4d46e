//! The description of the API is part of the API: a change of it is seen in a review.

#[test]
fn the_openapi_document_is_as_reviewed() {
    insta::assert_json_snapshot!(modelway_control::openapi());
}

#[test]
fn every_operation_documents_its_refusals() {
    let document = serde_json::to_value(modelway_control::openapi()).expect("the document is JSON");
    assert_eq!(document["openapi"], "3.1.0");
    let paths = document["paths"].as_object().expect("an object of paths");
    for (path, operations) in paths.iter().filter(|(path, _)| path.starts_with("/v1/")) {
        for (method, operation) in operations.as_object().expect("an object of operations") {
            let refusal = &operation["responses"]["default"]["content"]["application/problem+json"]["schema"]["$ref"];
            assert_eq!(refusal, "#/components/schemas/Problem", "{method} {path}");
            assert!(operation["operationId"].is_string(), "{method} {path}");
        }
    }
}
