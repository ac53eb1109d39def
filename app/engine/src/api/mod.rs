//! The Docker Engine API and, under `/dctl/`, what we add to it.
//!
//! Each module holds the handlers of one kind of object; what they know of it
//! comes from the agent with each request. Nothing here outlives its request.

mod archive;
mod archive_stream;
mod attach;
mod auth;
mod container_defaults;
mod container_list;
mod container_networks;
mod container_prune;
mod container_view;
mod containers;
mod disk_usage;
mod error;
mod events;
mod exec;
mod filters;
mod hijack;
mod image_archives;
mod image_view;
mod images;
mod machine;
mod networks;
mod new_images;
mod parameters;
mod progress;
mod registries;
mod rejections;
mod stats;
mod system;
pub(crate) mod times;
mod unknown;
mod version;
mod volumes;

use std::sync::Arc;

use axum::{
    Router,
    extract::DefaultBodyLimit,
    middleware::map_response,
    routing::{delete, get, post},
};

use crate::{agent::Agent, ports::Ports, shares::Shares};

pub(crate) use error::ApiError;
pub(crate) use times::duration;
pub(crate) use version::{MAX_VERSION, negotiate};

/// The largest body of a request, in bytes. Configurations are all that is sent.
const MAX_BODY: usize = 4 * 1024 * 1024;

/// What handlers need.
#[derive(Clone)]
pub(crate) struct Context {
    /// The agent in the machine.
    pub(crate) agent: Arc<Agent>,
    /// Files of this host that containers mount.
    pub(crate) shares: Arc<Shares>,
    /// The starter image's layout, if this binary has one.
    pub(crate) starter: Option<&'static [u8]>,
    /// Ends the engine when told to.
    pub(crate) shutdown: Arc<tokio::sync::Notify>,
    /// The host's listeners for containers.
    pub(crate) ports: Ports,
}

/// All routes, without version prefix: see [`negotiate`].
pub(crate) fn router(context: Context) -> Router {
    Router::new()
        .merge(system_routes())
        .merge(container_routes())
        .merge(image_routes())
        .merge(volume_routes())
        .merge(network_routes())
        .merge(machine_routes())
        .fallback(unknown::endpoint)
        .method_not_allowed_fallback(unknown::endpoint)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(map_response(rejections::as_json))
        .with_state(context)
}

fn system_routes() -> Router<Context> {
    Router::new()
        .route("/_ping", get(system::ping))
        .route("/version", get(system::version))
        .route("/info", get(system::info))
        .route("/auth", post(auth::check))
        .route("/events", get(events::stream))
        .route("/system/df", get(disk_usage::usage))
}

fn network_routes() -> Router<Context> {
    Router::new()
        .route("/networks", get(networks::list))
        .route("/networks/create", post(networks::create))
        .route("/networks/prune", post(networks::prune))
        .route(
            "/networks/{name}",
            get(networks::inspect).delete(networks::remove),
        )
        .route("/networks/{name}/connect", post(networks::connect))
        .route("/networks/{name}/disconnect", post(networks::disconnect))
}

fn volume_routes() -> Router<Context> {
    Router::new()
        .route("/volumes", get(volumes::list))
        .route("/volumes/create", post(volumes::create))
        .route("/volumes/prune", post(volumes::prune))
        .route(
            "/volumes/{name}",
            get(volumes::inspect).delete(volumes::remove),
        )
        .route("/dctl/volumes/{name}/backup", get(volumes::backup))
        .route("/dctl/volumes/{name}/restore", post(volumes::restore))
}

fn container_routes() -> Router<Context> {
    Router::new()
        .route("/containers/json", get(container_list::list))
        .route("/containers/create", post(containers::create))
        .route("/containers/prune", post(container_prune::prune))
        .route("/containers/{id}", delete(containers::remove))
        .route("/containers/{id}/json", get(container_view::inspect))
        .route("/containers/{id}/start", post(containers::start))
        .route("/containers/{id}/stop", post(containers::stop))
        .route("/containers/{id}/restart", post(containers::restart))
        .route("/containers/{id}/kill", post(containers::kill))
        .route("/containers/{id}/rename", post(containers::rename))
        .route("/containers/{id}/resize", post(containers::resize))
        .route("/containers/{id}/top", get(containers::top))
        .route("/containers/{id}/pause", post(containers::pause))
        .route("/containers/{id}/unpause", post(containers::unpause))
        .route("/containers/{id}/update", post(containers::update))
        .route("/containers/{id}/changes", get(containers::changes))
        .route("/containers/{id}/stats", get(stats::stats))
        .route("/containers/{id}/wait", post(containers::wait))
        .route("/containers/{id}/attach", post(attach::attach))
        .route("/containers/{id}/logs", get(attach::logs))
        .route(
            "/containers/{id}/archive",
            get(archive::get).head(archive::stat).put(archive::put),
        )
        .route("/containers/{id}/export", get(archive::export))
        .route("/commit", post(new_images::commit))
        .route("/containers/{id}/exec", post(exec::create))
        .route("/exec/{id}/start", post(exec::start))
        .route("/exec/{id}/resize", post(exec::resize))
        .route("/exec/{id}/json", get(exec::inspect))
}

fn image_routes() -> Router<Context> {
    Router::new()
        .route("/images/json", get(images::list))
        .route("/images/create", post(images::create))
        .route("/images/prune", post(images::prune))
        .route("/images/get", get(image_archives::save_several))
        .route("/images/load", post(image_archives::load))
        .route("/images/search", get(registries::search))
        .route("/distribution/{*name}", get(registries::distribution))
        .route("/dctl/manifest/{*name}", get(registries::manifest))
        // Names have slashes: what follows them is told apart by the handler.
        .route(
            "/images/{*name}",
            get(images::get).post(images::post).delete(images::remove),
        )
}

fn machine_routes() -> Router<Context> {
    Router::new()
        .route(
            "/dctl/machine",
            get(machine::status)
                .patch(machine::change)
                .delete(machine::remove),
        )
        .route("/dctl/machine/start", post(machine::start))
        .route("/dctl/machine/stop", post(machine::stop))
        .route("/dctl/machine/restart", post(machine::restart))
        .route("/dctl/machine/reset", post(machine::reset))
        .route("/dctl/machine/logs", get(machine::logs))
        .route("/dctl/machine/shell", post(machine::shell))
        .route("/dctl/engine/stop", post(machine::stop_engine))
}
