//! `--filter name=value`, as the API takes it.

use std::collections::BTreeMap;

/// The filters as JSON (`{"name": {"value": true}}`); `None` without any.
pub(crate) fn encode(filters: &[String]) -> Result<Option<String>, String> {
    let mut encoded: BTreeMap<String, BTreeMap<&str, bool>> = BTreeMap::new();
    for filter in filters {
        let (name, value) = filter
            .split_once('=')
            .ok_or_else(|| format!("invalid argument \"{filter}\" for \"-f, --filter\" flag: bad format of filter (expected name=value)"))?;
        encoded
            .entry(name.trim().to_lowercase())
            .or_default()
            .insert(value.trim(), true);
    }
    if encoded.is_empty() {
        return Ok(None);
    }
    serde_json::to_string(&encoded)
        .map(Some)
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_one_name_are_collected() {
        let filters = ["status=exited", "Status=created", "label=a=b"].map(str::to_owned);
        assert_eq!(
            encode(&filters).unwrap().unwrap(),
            r#"{"label":{"a=b":true},"status":{"created":true,"exited":true}}"#
        );
        assert_eq!(encode(&[]).unwrap(), None);
        assert!(encode(&["status".to_owned()]).is_err());
    }
}
