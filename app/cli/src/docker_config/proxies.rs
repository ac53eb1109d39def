//! The proxies that new containers are told of, as environment variables.
//!
//! `run` and `create` come here. What is asked for on their command line wins over
//! the file; the engine's own proxies are another matter.
//!
//! Source: Docker's documentation "Use a proxy server with the Docker CLI".

use serde_json::Value;

use super::Configuration;

/// The file's names and the variables'. Programs do not agree on the letters' case:
/// each variable is set in both.
const VARIABLES: [(&str, &str); 5] = [
    ("httpProxy", "HTTP_PROXY"),
    ("httpsProxy", "HTTPS_PROXY"),
    ("noProxy", "NO_PROXY"),
    ("ftpProxy", "FTP_PROXY"),
    ("allProxy", "ALL_PROXY"),
];
/// The entry for engines that have none of their own.
const DEFAULT: &str = "default";

impl Configuration {
    /// Variables, `NAME=value`, for containers of the engine at `host`
    /// (`unix:///path`), without those that `given` names (`NAME=value` or `NAME`).
    pub(crate) fn proxy_variables(&self, host: &str, given: &[String]) -> Vec<String> {
        let entries = self.values.get("proxies");
        let entry = entries.and_then(|entries| entries.get(host).or_else(|| entries.get(DEFAULT)));
        let value = |key| entry?.get(key).and_then(Value::as_str);
        let is_given = |name: &str| {
            let names = given.iter().map(|one| one.split('=').next());
            names.flatten().any(|given| given == name)
        };
        VARIABLES
            .into_iter()
            .filter_map(|(key, name)| Some((name, value(key).filter(|value| !value.is_empty())?)))
            .flat_map(|(name, value)| [(name.to_owned(), value), (name.to_lowercase(), value)])
            .filter(|(name, _)| !is_given(name))
            .map(|(name, value)| format!("{name}={value}"))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "unix:///run/docker.sock";

    fn variables(proxies: &str, given: &[&str]) -> Vec<String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.json");
        std::fs::write(&path, format!(r#"{{"proxies":{proxies}}}"#)).unwrap();
        let given: Vec<String> = given.iter().map(ToString::to_string).collect();
        Configuration::read(path)
            .unwrap()
            .proxy_variables(HOST, &given)
    }

    #[test]
    fn each_is_set_in_both_cases() {
        let all = r#"{"default":{"httpProxy":"http://a:1","httpsProxy":"http://b:2",
            "noProxy":"*.test,::1","ftpProxy":"http://c:3","allProxy":"socks5://d:4"}}"#;
        let expected = [
            "HTTP_PROXY=http://a:1",
            "http_proxy=http://a:1",
            "HTTPS_PROXY=http://b:2",
            "https_proxy=http://b:2",
            "NO_PROXY=*.test,::1",
            "no_proxy=*.test,::1",
            "FTP_PROXY=http://c:3",
            "ftp_proxy=http://c:3",
            "ALL_PROXY=socks5://d:4",
            "all_proxy=socks5://d:4",
        ];
        assert_eq!(variables(all, &[]), expected);
    }

    #[test]
    fn an_engines_own_entry_replaces_the_default_one() {
        let own = r#"{"default":{"httpProxy":"http://a:1","noProxy":"b"},
            "unix:///run/docker.sock":{"httpProxy":"http://c:2","httpsProxy":""}}"#;
        let expected = ["HTTP_PROXY=http://c:2", "http_proxy=http://c:2"];
        assert_eq!(variables(own, &[]), expected);
        let other = r#"{"tcp://other:1":{"httpProxy":"http://a:1"}}"#;
        assert!(variables(other, &[]).is_empty());
    }

    #[test]
    fn the_command_line_wins_name_by_name() {
        let proxies = r#"{"default":{"httpProxy":"http://a:1","noProxy":"b"}}"#;
        let given = ["HTTP_PROXY=", "no_proxy", "http_proxy_of_mine=x"];
        assert_eq!(
            variables(proxies, &given),
            ["http_proxy=http://a:1", "NO_PROXY=b"]
        );
    }

    #[test]
    fn what_is_no_proxy_is_none() {
        for odd in ["null", "[]", "7", r#"{"default":{"httpProxy":7}}"#] {
            assert!(variables(odd, &[]).is_empty(), "{odd}");
        }
    }
}
