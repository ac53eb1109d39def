//! `--format`: the part of Go's text/template that Docker's documentation uses,
//! over JSON values.
//!
//! Text, fields, variables, pipes, parentheses, `if`, `with`, `range`, and the
//! functions that Docker and Go offer for formatting. What is not supported is an
//! error when the template is parsed, never silently something else.

mod datum;
mod docker_types;
mod functions;
mod lexer;
mod parser;
mod printf;
mod render;

use serde_json::{Map, Value};

use self::parser::Node;

/// A parsed template.
#[derive(Debug, Clone)]
pub(crate) struct Template {
    nodes: Vec<Node>,
}

impl Template {
    /// Parses a template.
    ///
    /// # Errors
    /// In words for the user: a syntax error, or something that is not supported.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        parser::parse(&lexer::lex(text)?)
            .map(|nodes| Self { nodes })
            .map_err(|problem| format!("failed to parse template: {problem}"))
    }

    /// Applies it to `value`. `labels` serve `.Label "name"`, the one method that
    /// Docker's tables have.
    ///
    /// # Errors
    /// In words for the user: a field that is not there, a function given what it
    /// cannot take.
    pub(crate) fn render(
        &self,
        value: &Value,
        labels: Option<&Map<String, Value>>,
    ) -> Result<String, String> {
        render::render(&self.nodes, value, labels)
            .map_err(|problem| format!("failed to execute template: {problem}"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn render(template: &str, value: &Value) -> Result<String, String> {
        Template::parse(template)?.render(value, None)
    }

    fn container() -> Value {
        json!({
            "Id": "abc",
            "Name": "/web",
            "State": { "Status": "running", "ExitCode": 0, "Running": true, "Health": null },
            "Config": { "Env": ["A=1", "B=2"], "Labels": { "x.y": "z", "a": "b" } },
            "Empty": [],
            "Quote": "a\"<b>",
        })
    }

    #[test]
    fn what_users_write() {
        let value = container();
        for (template, expected) in [
            ("{{.State.ExitCode}}", "0"),
            ("{{ .Name }} is {{.State.Status}}", "/web is running"),
            ("{{.ID}}", "abc"),
            ("{{json .State.Running}}", "true"),
            ("{{json .Config.Env}}", r#"["A=1","B=2"]"#),
            ("{{.Config.Env}}", "[A=1 B=2]"),
            ("{{.Config.Labels}}", "map[a:b x.y:z]"),
            (r#"{{index .Config.Labels "x.y"}}"#, "z"),
            (r#"{{index .Config.Labels "none"}}"#, ""),
            ("{{index .Config.Env 1}}", "B=2"),
            (r#"{{join .Config.Env ", "}}"#, "A=1, B=2"),
            (r#"{{.Config.Env | len | printf "%d items"}}"#, "2 items"),
            ("{{range .Config.Env}}{{println .}}{{end}}", "A=1\nB=2\n"),
            (
                "{{range $i, $e := .Config.Env}}{{if $i}},{{end}}{{$i}}:{{$e}}{{end}}",
                "0:A=1,1:B=2",
            ),
            (
                "{{range $k, $v := .Config.Labels}}{{$k}}={{$v}};{{end}}",
                "a=b;x.y=z;",
            ),
            ("{{range .Empty}}x{{else}}none{{end}}", "none"),
            (
                "{{if .State.Health}}{{.State.Health.Status}}{{else}}no{{end}}",
                "no",
            ),
            ("{{if .State.Nothing}}yes{{end}}", ""),
            (
                "{{if eq .State.Status \"exited\"}}1{{else if .State.Running}}2{{else}}3{{end}}",
                "2",
            ),
            (
                "{{with .State}}{{.Status}} {{$.Name}}{{end}}",
                "running /web",
            ),
            ("a {{- .Name -}} b", "a/webb"),
            ("{{/* nothing */}}x", "x"),
            (
                "{{upper .Name}}{{lower \"ABC\"}}{{title \"abc\"}}",
                "/WEBabcAbc",
            ),
            ("{{(index .Config.Env 0)}}", "A=1"),
            ("{{$x := .Name}}{{$x}}", "/web"),
            ("{{and .State.Running (not .State.Health)}}", "true"),
            ("{{or .State.Health .Name}}", "/web"),
            ("{{ne 1 2}}{{lt 1 2}}{{ge 1 2}}", "truetruefalse"),
            ("{{`raw`}}{{\"\\t\"}}|", "raw\t|"),
            ("{{.State.Health}}", "<nil>"),
            ("{{json .Quote}}", r#""a\"\u003cb\u003e""#),
            ("{{len .Name}}", "4"),
            ("{{slice .Name 1}}", "web"),
            ("{{truncate .Name 2}}", "/w"),
            ("{{pad .Name 1 2}}|", " /web  |"),
            ("{{index (split .Name \"e\") 1}}", "b"),
            ("{{.Config.Labels.none}}", "<no value>"),
            (
                r#"{{printf "%-6s|%6s|%.2f|%05d|%x" "ab" "cd" 1.5 42 255}}"#,
                "ab    |    cd|1.50|00042|ff",
            ),
            (
                r#"{{printf "%q %v %t %%" "a" .Config.Env true}}"#,
                r#""a" [A=1 B=2] true %"#,
            ),
            ("{{range .Config.Env}}{{.}}{{break}}{{end}}", "A=1"),
            (
                "{{range $i, $e := .Config.Env}}{{if eq $i 0}}{{continue}}{{end}}{{$e}}{{end}}",
                "B=2",
            ),
            (
                "{{$n := 0}}{{range .Config.Env}}{{$n = .}}{{end}}{{$n}}",
                "B=2",
            ),
            (
                "{{with .State.Health}}x{{else with .Name}}{{.}}{{end}}",
                "/web",
            ),
            (
                "{{if and .State.Health (eq .State.Health.Status \"healthy\")}}x{{end}}",
                "",
            ),
            ("{{len .State.Health}}", "0"),
            ("{{html .Quote}}", "a&#34;&lt;b&gt;"),
            ("{{urlquery \"a b&c\"}}", "a+b%26c"),
            ("{{.}}", ""),
        ] {
            if template == "{{.}}" {
                assert!(render(template, &value).unwrap().starts_with("map[Config:"));
            } else {
                assert_eq!(
                    render(template, &value).as_deref(),
                    Ok(expected),
                    "{template}"
                );
            }
        }
    }

    /// From documentation, scripts and tools that people use.
    #[test]
    fn templates_from_the_wild() {
        let value = json!({
            "Id": "abc", "Name": "/web", "RestartCount": 2,
            "State": { "Status": "running", "Pid": 42, "Health": { "Status": "healthy", "Log": [{"Output": "ok"}] } },
            "Config": { "Labels": { "com.docker.compose.project": "shop" }, "Env": ["PATH=/bin", "A=1"] },
            "HostConfig": { "Memory": 0, "RestartPolicy": { "Name": "always" } },
            "Mounts": [{ "Type": "volume", "Source": "/data", "Destination": "/var/lib" }],
            "NetworkSettings": {
                "IPAddress": "",
                "Ports": { "80/tcp": [{ "HostIp": "0.0.0.0", "HostPort": "8080" }], "90/tcp": null },
                "Networks": { "bridge": { "IPAddress": "172.17.0.2", "MacAddress": "02:42" } },
            },
        });
        for (template, expected) in [
            (
                "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}",
                "172.17.0.2",
            ),
            (
                "{{range $name, $net := .NetworkSettings.Networks}}{{$name}}={{$net.MacAddress}}{{end}}",
                "bridge=02:42",
            ),
            (
                "{{.NetworkSettings.Networks.bridge.IPAddress}}",
                "172.17.0.2",
            ),
            (
                r#"{{(index (index .NetworkSettings.Ports "80/tcp") 0).HostPort}}"#,
                "8080",
            ),
            (
                "{{range $p, $conf := .NetworkSettings.Ports}}{{if $conf}}{{$p}} -> {{(index $conf 0).HostPort}} {{end}}{{end}}",
                "80/tcp -> 8080 ",
            ),
            (
                r#"{{if index .NetworkSettings.Ports "90/tcp"}}open{{else}}closed{{end}}"#,
                "closed",
            ),
            ("{{.State.Health.Status}}", "healthy"),
            (
                "{{if .State.Health}}{{.State.Health.Status}}{{else}}none{{end}}",
                "healthy",
            ),
            ("{{range .State.Health.Log}}{{.Output}}{{end}}", "ok"),
            (
                r#"{{ index .Config.Labels "com.docker.compose.project" }}"#,
                "shop",
            ),
            (
                r#"{{range .Mounts}}{{printf "%s:%s" .Source .Destination}}{{"\n"}}{{end}}"#,
                "/data:/var/lib\n",
            ),
            (
                r#"{{range .Mounts}}{{if eq .Type "volume"}}{{.Source}}{{end}}{{end}}"#,
                "/data",
            ),
            (
                "{{range $index, $value := .Config.Env}}{{println $value}}{{end}}",
                "PATH=/bin\nA=1\n",
            ),
            (
                r#"{{range .Config.Env}}{{$pair := split . "="}}{{index $pair 0}} {{end}}"#,
                "PATH A ",
            ),
            ("{{.HostConfig.RestartPolicy.Name}}", "always"),
            ("{{ .Name | upper | printf \"%q\" }}", "\"/WEB\""),
            ("{{slice .Id 0 2}}", "ab"),
            (
                "{{.Name}}\t{{.State.Pid}}\t{{.RestartCount}}",
                "/web\t42\t2",
            ),
            (
                "{{json .Mounts}}",
                r#"[{"Destination":"/var/lib","Source":"/data","Type":"volume"}]"#,
            ),
            (
                r#"{{if and (eq .State.Status "running") (gt .RestartCount 1)}}flapping{{end}}"#,
                "flapping",
            ),
            ("{{not .State.Health}}", "false"),
        ] {
            let rendered = render(template, &value);
            if template.starts_with("{{json") {
                // Order is that of the engine's reply.
                let rendered: Value = serde_json::from_str(&rendered.unwrap()).unwrap();
                let expected: Value = serde_json::from_str(expected).unwrap();
                assert_eq!(rendered, expected);
            } else {
                assert_eq!(rendered.as_deref(), Ok(expected), "{template}");
            }
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let value = container();
        for (template, part) in [
            ("{{.Nope}}", "no field .Nope"),
            ("{{.State.Nope}}", "no field .State.Nope"),
            ("{{.Name.First}}", "no field .Name.First"),
            ("{{.Name", "unclosed action"),
            ("{{if .Name}}", "unexpected end"),
            ("{{end}}", "unexpected {{end}}"),
            ("{{else}}", "unexpected {{else}}"),
            ("{{nope .}}", "function \"nope\" is not supported"),
            (
                "{{template \"x\"}}",
                "function \"template\" is not supported",
            ),
            ("{{$x}}", "undefined variable \"$x\""),
            ("{{index .Config.Env 7}}", "out of range"),
            ("{{len 3}}", "len"),
            ("{{\"abc}}", "unterminated"),
            ("{{range .Name}}{{end}}", "range"),
            ("{{printf \"%y\" 1}}", "%y"),
            ("{{break}}", "outside"),
            ("{{$x = 1}}", "undefined variable"),
            ("{{if $x = 1}}{{end}}", "unexpected"),
            (
                "{{range $}}{{range $}}{{range $}}{{range $}}{{range $}}{{range $}}{{range $}}{{range $}}x{{end}}{{end}}{{end}}{{end}}{{end}}{{end}}{{end}}{{end}}",
                "does not come to an end",
            ),
            ("{{}}", "missing value"),
            ("{{. |}}", "missing value"),
            ("{{.Name .Name}}", "not a function"),
        ] {
            let error = render(template, &value).unwrap_err();
            assert!(error.contains(part), "{template}: {error}");
        }
    }

    #[test]
    fn labels_of_a_row() {
        let labels = json!({ "a": "b" });
        let template = Template::parse("{{.Label \"a\"}}{{.Label \"c\"}}").unwrap();
        assert_eq!(
            template.render(&json!({}), labels.as_object()).unwrap(),
            "b"
        );
    }

    #[test]
    fn nesting_has_a_limit() {
        let deep = "{{if .}}".repeat(100_000);
        assert!(Template::parse(&deep).is_err());
        let deep = format!("{{{{{}", "(".repeat(100_000));
        assert!(Template::parse(&format!("{deep}}}}}")).is_err());
    }

    proptest! {
        #[test]
        fn any_template_is_rendered_or_refused(
            text in r#"(\{\{-? ?|-?\}\}|[.$|()",:= ]|if|else|end|range|json|index|Name|State|[a-z0-9\\]){0,24}"#,
        ) {
            let _ = render(&text, &container());
        }

        #[test]
        fn text_stays_as_it_is(text in "[^{]*") {
            prop_assert_eq!(render(&text, &Value::Null), Ok(text));
        }
    }
}
