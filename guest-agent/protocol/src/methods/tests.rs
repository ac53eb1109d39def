use super::*;

#[test]
fn a_request_is_tagged_with_its_method() {
    let request = ContainerStart {
        container: "web".into(),
    }
    .into_request();
    let json = serde_json::to_string(&request).unwrap();
    assert_eq!(
        json,
        r#"{"method":"ContainerStart","params":{"container":"web"}}"#
    );
    let back: Request = serde_json::from_str(&json).unwrap();
    assert_eq!(back.name(), "ContainerStart");
}
