//! The list of what is served: each route beside its handler, so that the list cannot
//! say more or less than the router does (`docs/api.md` is held against it).

use axum::{
    Router,
    handler::Handler,
    routing::{MethodFilter, on},
};

use super::{Context, unknown};

/// A method and a path that are served. Names in braces stand for anything.
#[cfg(test)]
#[derive(Debug, Clone, Copy)]
pub(super) struct Route {
    pub(super) path: &'static str,
    pub(super) method: &'static str,
}

/// A router, and the list of its routes.
pub(super) struct Routes {
    router: Router<Context>,
    #[cfg(test)]
    list: Vec<Route>,
}

impl Routes {
    pub(super) fn new() -> Self {
        Self {
            router: Router::new(),
            #[cfg(test)]
            list: Vec::new(),
        }
    }

    pub(super) fn get<T: 'static>(
        self,
        path: &'static str,
        handler: impl Handler<T, Context>,
    ) -> Self {
        self.all_of("GET", path, &[path], handler)
    }

    pub(super) fn head<T: 'static>(
        self,
        path: &'static str,
        handler: impl Handler<T, Context>,
    ) -> Self {
        self.all_of("HEAD", path, &[path], handler)
    }

    pub(super) fn post<T: 'static>(
        self,
        path: &'static str,
        handler: impl Handler<T, Context>,
    ) -> Self {
        self.all_of("POST", path, &[path], handler)
    }

    pub(super) fn put<T: 'static>(
        self,
        path: &'static str,
        handler: impl Handler<T, Context>,
    ) -> Self {
        self.all_of("PUT", path, &[path], handler)
    }

    pub(super) fn patch<T: 'static>(
        self,
        path: &'static str,
        handler: impl Handler<T, Context>,
    ) -> Self {
        self.all_of("PATCH", path, &[path], handler)
    }

    pub(super) fn delete<T: 'static>(
        self,
        path: &'static str,
        handler: impl Handler<T, Context>,
    ) -> Self {
        self.all_of("DELETE", path, &[path], handler)
    }

    /// A handler that tells apart by itself what is below a path: names have slashes.
    pub(super) fn all_of<T: 'static>(
        mut self,
        method: &'static str,
        path: &'static str,
        below: &[&'static str],
        handler: impl Handler<T, Context>,
    ) -> Self {
        #[cfg(test)]
        self.list
            .extend(below.iter().map(|path| Route { path, method }));
        #[cfg(not(test))]
        let _ = below;
        let filter = match method {
            "HEAD" => MethodFilter::HEAD,
            "POST" => MethodFilter::POST,
            "PUT" => MethodFilter::PUT,
            "PATCH" => MethodFilter::PATCH,
            "DELETE" => MethodFilter::DELETE,
            _ => MethodFilter::GET,
        };
        self.router = self.router.route(path, on(filter, handler));
        if method == "GET" && !HAVE_HEAD.contains(&path) {
            // Docker answers HEAD where it says so, and nowhere else.
            self.router = self
                .router
                .route(path, on(MethodFilter::HEAD, unknown::endpoint));
        }
        self
    }

    pub(super) fn merge(mut self, other: Self) -> Self {
        self.router = self.router.merge(other.router);
        #[cfg(test)]
        self.list.extend(other.list);
        self
    }

    pub(super) fn into_router(self) -> Router<Context> {
        self.router
    }

    #[cfg(test)]
    pub(super) fn list(&self) -> &[Route] {
        &self.list
    }
}

/// What answers HEAD, too.
const HAVE_HEAD: &[&str] = &["/_ping", "/containers/{id}/archive"];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    /// The lines of tables: `| GET | `/path` | … |`.
    fn documented(text: &str) -> Vec<(String, String)> {
        let cells = |line: &str| -> Option<(String, String)> {
            let mut cells = line.strip_prefix('|')?.split('|').map(str::trim);
            let method = cells.next()?.to_owned();
            let path = cells.next()?.strip_prefix('`')?.strip_suffix('`')?;
            Some((method, path.to_owned()))
        };
        text.lines().filter_map(cells).collect()
    }

    #[test]
    fn every_endpoint_is_documented_and_nothing_else() {
        let text = include_str!("../../../../docs/api.md");
        let lines = documented(text);
        let documented: BTreeSet<_> = lines.iter().cloned().collect();
        assert_eq!(documented.len(), lines.len(), "an endpoint has two lines");
        let served = super::super::served().into_iter();
        let served: BTreeSet<_> = served
            .map(|(method, path)| (method.to_owned(), path.to_owned()))
            .collect();
        let missing: Vec<_> = served.difference(&documented).collect();
        let gone: Vec<_> = documented.difference(&served).collect();
        assert!(
            missing.is_empty() && gone.is_empty(),
            "docs/api.md lacks {missing:?} and tells of {gone:?}"
        );
    }
}
