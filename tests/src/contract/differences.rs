//! Where our answers differ from Docker's, and why that is meant.

/// Differences that are meant, for one reason.
#[derive(Debug)]
pub(super) struct Reason {
    /// For people.
    pub(super) why: &'static str,
    pub(super) differences: &'static [Difference],
}

/// A difference that is meant.
#[derive(Debug, Clone, Copy)]
pub(super) struct Difference {
    /// The requests, as recorded; `*` stands for anything.
    pub(super) request: &'static str,
    /// The places in their answers: `status`, `error` (status and message), `header NAME`,
    /// `body.FIELD.FIELD`, `said`.
    pub(super) place: &'static str,
    /// What Docker has there.
    pub(super) recorded: &'static str,
    /// It depends on the moment, or on what others do with the engine.
    pub(super) sometimes: bool,
}

const fn always(request: &'static str, place: &'static str, recorded: &'static str) -> Difference {
    Difference {
        request,
        place,
        recorded,
        sometimes: false,
    }
}

const fn sometimes(
    request: &'static str,
    place: &'static str,
    recorded: &'static str,
) -> Difference {
    Difference {
        sometimes: true,
        ..always(request, place, recorded)
    }
}

impl Difference {
    pub(super) fn covers(&self, request: &str, place: &str, recorded: &str) -> bool {
        matches(self.request, request)
            && matches(self.place, place)
            && matches(self.recorded, recorded)
    }
}

/// Whether `text` is as `pattern` says, in which `*` stands for anything.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, tail)) => text.strip_prefix(head).is_some_and(|rest| {
            let starts = rest.char_indices().map(|(at, _)| at).chain([rest.len()]);
            starts
                .into_iter()
                .any(|at| matches(tail, rest.split_at(at).1))
        }),
    }
}

/// All of them: groups that have a reason in common.
pub(super) const MEANT: &[Reason] = &[
    Reason {
        why: "Places that nothing on this host leads to: they are in the machine.",
        differences: &[
            always("*", "body.GraphDriver.Data.*", "*"),
            always("*", "body.HostnamePath", "text"),
            always("*", "body.HostsPath", "text"),
            always("*", "body.ResolvConfPath", "text"),
        ],
    },
    Reason {
        why: "There is no containerd, shim or runc, and nothing is of Go: the agent makes containers itself.",
        differences: &[
            always("GET */info", "body.Containerd", "*"),
            always("GET */info", "body.Runtimes.*", "*"),
            always("GET */version", "body.BuildTime", "time"),
            always("GET */version", "body.GitCommit", "text"),
            always("GET */version", "body.GoVersion", "text"),
            always(
                "POST /containers/contract-input/start*",
                "error",
                "400 failed to create task for container: failed to create shim task:*",
            ),
        ],
    },
    Reason {
        why: "No devices of the machine are described by CDI.",
        differences: &[always("GET */info", "body.CDISpecDirs", "[…]")],
    },
    Reason {
        why: "It says whose engine it is.",
        differences: &[always("GET */version", "body.Platform.Name", "empty text")],
    },
    Reason {
        why: "There is no BuildKit yet.",
        differences: &[
            always("* */_ping", "header builder-version", "2"),
            always("POST /session", "error", "*"),
            always("POST /grpc", "error", "*"),
            always("POST /build*", "error", "500 *"),
        ],
    },
    Reason {
        why: "There are no plugins to be had.",
        differences: &[
            always("POST /plugins/create*", "error", "500 *"),
            always("POST /plugins/pull", "error", "500 *"),
            always("POST /plugins/contract-nobody/enable", "error", "500 *"),
            always("POST /plugins/contract-nobody/upgrade*", "error", "404 *"),
        ],
    },
    Reason {
        why: "Answers to paths that nobody serves tell as much as others.",
        differences: &[
            always("*", "header api-version", "missing"),
            always("*", "header docker-experimental", "missing"),
            always("*", "header ostype", "missing"),
            always("*", "header server", "missing"),
        ],
    },
    Reason {
        why: "What a client got wrong is 400, not 500, and no number is none in other words than Go's.",
        differences: &[
            always("*", "error", "*strconv.*"),
            always(
                "*",
                "error",
                "500 failed to parse value as time or duration*",
            ),
            always("*", "error", "500 invalid --security-opt*"),
            always("*", "error", "500 --storage-opt*"),
            always("*", "error", "500 Invalid escape keys*"),
            always("*", "error", "500 invalid volume specification*"),
            always("*", "error", "500 invalid mode: nonsense"),
            always(
                "*",
                "error",
                "500 Bad parameters: you must choose at least one stream",
            ),
            always("*", "error", "500 invalid filter: 'type'='nonsense'"),
            always(
                "*",
                "error",
                "500 Cannot restart container*: invalid signal: NONSENSE",
            ),
            always("*", "error", "500 unable to find *"),
            always("*", "error", "500 invalid reference format*"),
            always(
                "DELETE *",
                "error",
                "500 Conflict, cannot remove the default link name of the container",
            ),
            always(
                "POST /images/create",
                "error",
                "500 Get *http: no Host in request URL",
            ),
            always(
                "POST /networks/*/disconnect *",
                "error",
                "500 *is not connected to network*",
            ),
            always("*", "error", "500 unexpected EOF"),
            always("POST /auth*", "error", "500 *"),
        ],
    },
    Reason {
        why: "Other parsers' words, and some say more.",
        differences: &[
            always("*", "error", "*json: cannot unmarshal*"),
            always(
                "*",
                "error",
                "*failed to parse platform: invalid character*",
            ),
            always("*", "error", "400 *must be lowercase"),
            always("*", "error", "400 bad parameter: pathcannot be empty"),
            always("*", "error", "400 create contract bad: *"),
            always("*", "error", "400 invalid value for filter 'dangling'*"),
        ],
    },
    Reason {
        why: "Others use the engine at the same time, and what they have is listed, too.",
        differences: &[
            sometimes("GET */containers/json?filters=null", "body*", "*"),
            sometimes("GET */system/df*", "body*", "*"),
            sometimes("GET /volumes?filters={}", "body*", "*"),
            sometimes("GET /networks/", "body*", "*"),
            sometimes("GET /networks?filters=*", "body*", "*"),
            sometimes("GET /networks/bridge", "body*", "*"),
            sometimes("GET /v1.24/images/json?filter=$image", "body*", "*"),
        ],
    },
    Reason {
        why: "What cgroup v2 has not is not told of before the first start either.",
        differences: &[always("GET *", "body.HostConfig.OomKillDisable", "bool")],
    },
    Reason {
        why: "Statistics have a type when they are streamed, too.",
        differences: &[always(
            "GET /containers/*/stats*",
            "header content-type",
            "missing",
        )],
    },
    Reason {
        why: "What is found out before a container is made here, Docker finds out when it starts.",
        differences: &[
            always("POST /containers/create*", "status", "201"),
            always(
                "POST /containers/create*",
                "body",
                "{\"json\":{\"Id\":\"id\",\"Warnings\":*",
            ),
            sometimes(
                "GET /containers/contract-input/json*",
                "body.LogPath",
                "empty text",
            ),
            always("GET /containers/contract-input/json*", "status", "404"),
            always(
                "GET /containers/contract-input/json*",
                "body",
                "No such container*",
            ),
            always("POST /containers/contract-input/start*", "error", "404 *"),
            always("POST /networks/contract-template/connect *", "*", "*"),
        ],
    },
    Reason {
        why: "A container that is named and is not there is 404 wherever it is named.",
        differences: &[
            always(
                "POST /containers/create*",
                "error",
                "400 No such container: contract-nobody",
            ),
            always(
                "POST /containers/create*",
                "error",
                "400 invalid network mode: invalid container format*",
            ),
        ],
    },
    Reason {
        why: "The first thing that is wrong is told, and not all.",
        differences: &[
            always("POST *", "error", "400 *invalid endpoint settings:*"),
            always(
                "POST /containers/create*",
                "error",
                "400 invalid config for network bridge: invalid MAC address nonsense",
            ),
            always(
                "POST /containers/create*",
                "error",
                "404 create contract-v: error looking up volume plugin*",
            ),
            always(
                "POST /networks/create*",
                "error",
                "400 invalid network config:*doesn't contain this address",
            ),
            always(
                "POST /networks/create*",
                "error",
                "404 plugin \"contract-nobody\" not found",
            ),
            always(
                "POST /networks/create*",
                "error",
                "403 operation is not permitted on predefined * network ",
            ),
            always("POST /networks/none/connect*", "error", "400 *"),
            always("POST /images/create*", "error", "400 invalid tag format"),
        ],
    },
    Reason {
        why: "Volumes are folders and tmpfs.",
        differences: &[
            sometimes("POST /volumes/create*", "error", "*"),
            always("POST /volumes/create*", "body", "{\"json\":*"),
            sometimes("POST /volumes/create*", "status", "201"),
        ],
    },
    Reason {
        why: "An address that a user chose is shown where he chose it, and a container that does not run is in no network.",
        differences: &[
            always("GET *", "body.Config.MacAddress", "*"),
            sometimes("GET *", "body*NetworkSettings*.MacAddress", "empty text"),
            always("GET *", "body*.NetworkSettings.Networks.*.NetworkID", "id"),
            always("GET *", "body.NetworkSettings.Networks.*.DNSNames", "array"),
        ],
    },
    Reason {
        why: "A list of nothing is empty.",
        differences: &[
            always("GET /containers/contract-one/changes", "body", "null"),
            always("GET */distribution/*", "body.Platforms", "null"),
        ],
    },
    Reason {
        why: "The kernel of the recording (6.1) has no fchmodat2, without which that dockerd unpacks nothing.",
        differences: &[
            always("PUT /containers/contract-files/archive?path=/tmp", "*", "*"),
            always(
                "PUT /containers/contract-files/archive?path=/tmp&*",
                "*",
                "*",
            ),
        ],
    },
    Reason {
        why: "Whether a container has read of a disk depends on what is in memory.",
        differences: &[sometimes(
            "GET /containers/*/stats*",
            "body.blkio_stats.io_service_bytes_recursive",
            "null",
        )],
    },
    Reason {
        why: "A terminal's size that comes before the start is kept for it.",
        differences: &[always(
            "POST /containers/contract-one/resize?h=24&w=80 #2",
            "*",
            "*",
        )],
    },
    Reason {
        why: "What is mounted over a container's files is not among them, paths below a file are not found, and archives have their own type.",
        differences: &[
            always(
                "GET /containers/contract-files/archive?path=*",
                "body",
                "{\"archive\":[\"etc/\"*",
            ),
            always(
                "* /containers/contract-files/archive?path=/etc/passwd/",
                "*",
                "500*",
            ),
            always(
                "GET /containers/contract-files/export",
                "header content-type",
                "application/octet-stream",
            ),
        ],
    },
    Reason {
        why: "Layers are no images: an image has no parent, and its history is its own.",
        differences: &[
            always("GET *", "body*.ParentId", "digest"),
            always("GET /images/*", "body.Parent", "digest"),
            always("GET /images/*/history", "body[].*", "*"),
            always("GET */images/*/history", "body", "[]"),
            always("GET /images/*/json", "body.DockerVersion", "text"),
        ],
    },
    Reason {
        why: "Names of images are as they were asked for; a pattern that is none is the client's fault, and a name that is an expression and none is refused.",
        differences: &[
            always(
                "GET /images/*",
                "error",
                "404 No such image: contract-nobody*",
            ),
            always("GET /images/json?*", "error", "500 syntax error in pattern"),
            always("GET /containers/json*", "body", "{\"json\":[]}"),
            always("GET /containers/json*", "status", "200"),
            always("GET /images//json", "*", "*"),
        ],
    },
    Reason {
        why: "docker-compose 1 reads an image's volumes in its ContainerConfig, which BuildKit leaves empty.",
        differences: &[always(
            "GET /v1.*/images/$image/json",
            "body.ContainerConfig.*",
            "null",
        )],
    },
    Reason {
        why: "An archive that is none is refused at once where that can be known, and in our words.",
        differences: &[
            always("POST /images/load*", "said", "*"),
            always("POST /images/create?fromSrc=*", "status", "200"),
            always("POST /images/create?fromSrc=*", "body", "{\"objects\":*"),
            always("GET /images/get*", "*", "*"),
        ],
    },
    Reason {
        why: "What of an image is here is told, what is not in a registry is an error, and messages say what to do.",
        differences: &[
            always(
                "POST */images/create?fromImage=*",
                "body.progressDetail",
                "missing",
            ),
            always("POST */images/create?fromImage=*", "said", "nothing"),
            always(
                "POST /images/create?fromImage=*platform=linux/arm64",
                "*",
                "*",
            ),
            always("POST /images/create*", "error", "500 Get *"),
            always("POST /images/create*", "error", "500 Head *"),
            always("*", "error", "401 unauthorized: authentication required"),
            always("POST /images/*/push*", "*", "*"),
            always("GET /distribution/*", "error", "404 *"),
            sometimes("GET /distribution/*", "error", "500 *"),
            sometimes("GET /distribution/*", "error", "401 *"),
            always("GET /images/search?*", "*", "Unexpected status code 404"),
            sometimes("GET /images/search?*", "status", "500"),
        ],
    },
    Reason {
        why: "How much a container has written is told of one that has written nothing, too.",
        differences: &[sometimes(
            "GET /containers/json?*size=1*",
            "body[].SizeRw",
            "missing",
        )],
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_anything() {
        assert!(matches("GET */info", "GET /v1.24/info"));
        assert!(matches("*", "") && matches("a*c*", "abcd"));
        assert!(!matches("GET /info", "GET /info?x"));
        assert!(!matches("a*c", "abd"));
    }
}
