//! The Docker Engine API and, under `/dctl/`, what we add to it.
//!
//! Each module holds the handlers of one kind of object; what they know of it
//! comes from the agent with each request. Nothing here outlives its request.

mod archive;
mod archive_stream;
mod attach;
mod auth;
mod build;
mod container_defaults;
mod container_input;
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
mod image_defaults;
mod image_view;
mod images;
mod machine;
mod name_pattern;
mod networks;
mod new_images;
mod parameters;
mod plugins;
mod progress;
mod registries;
mod rejections;
mod routes;
mod stats;
mod swarm;
mod system;
mod system_defaults;
pub(crate) mod times;
mod unknown;
mod version;
mod volumes;
mod websocket;

use std::sync::Arc;

use axum::{Router, extract::DefaultBodyLimit, middleware::map_response};

use crate::{agent::Agent, ports::Ports, shares::Shares};

pub(crate) use error::ApiError;
use routes::Routes;
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
    routes()
        .into_router()
        .fallback(unknown::endpoint)
        .method_not_allowed_fallback(unknown::endpoint)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(map_response(rejections::as_json))
        .with_state(context)
}

/// Methods and paths of all routes.
#[cfg(test)]
pub(crate) fn served() -> Vec<(&'static str, &'static str)> {
    let routes = routes();
    let list = routes.list().iter();
    list.map(|route| (route.method, route.path)).collect()
}

fn routes() -> Routes {
    Routes::new()
        .merge(system_routes())
        .merge(container_routes())
        .merge(image_routes())
        .merge(volume_routes())
        .merge(network_routes())
        .merge(swarm_routes())
        .merge(plugin_routes())
        .merge(machine_routes())
}

fn system_routes() -> Routes {
    Routes::new()
        .head("/_ping", system::ping)
        .get("/_ping", system::ping)
        .get("/version", system::version)
        .get("/info", system::info)
        .post("/auth", auth::check)
        .get("/events", events::stream)
        .get("/system/df", disk_usage::usage)
        .post("/build", build::build)
        .post("/build/prune", build::prune)
        .post("/build/cancel", build::cancel)
        .post("/session", build::build)
        .post("/grpc", build::build)
}

fn network_routes() -> Routes {
    Routes::new()
        .get("/networks", networks::list)
        .get("/networks/", networks::list)
        .post("/networks/create", networks::create)
        .post("/networks/prune", networks::prune)
        .get("/networks/{name}", networks::inspect)
        .delete("/networks/{name}", networks::remove)
        .post("/networks/{name}/connect", networks::connect)
        .post("/networks/{name}/disconnect", networks::disconnect)
}

fn volume_routes() -> Routes {
    Routes::new()
        .get("/volumes", volumes::list)
        .post("/volumes/create", volumes::create)
        .post("/volumes/prune", volumes::prune)
        .get("/volumes/{name}", volumes::inspect)
        .put("/volumes/{name}", volumes::update)
        .delete("/volumes/{name}", volumes::remove)
        .get("/dctl/volumes/{name}/backup", volumes::backup)
        .post("/dctl/volumes/{name}/restore", volumes::restore)
}

fn container_routes() -> Routes {
    Routes::new()
        .get("/containers/json", container_list::list)
        .post("/containers/create", containers::create)
        .post("/containers/prune", container_prune::prune)
        .delete("/containers/{id}", containers::remove)
        .get("/containers/{id}/json", container_view::inspect)
        .post("/containers/{id}/start", containers::start)
        .post("/containers/{id}/stop", containers::stop)
        .post("/containers/{id}/restart", containers::restart)
        .post("/containers/{id}/kill", containers::kill)
        .post("/containers/{id}/rename", containers::rename)
        .post("/containers/{id}/resize", containers::resize)
        .get("/containers/{id}/top", containers::top)
        .post("/containers/{id}/pause", containers::pause)
        .post("/containers/{id}/unpause", containers::unpause)
        .post("/containers/{id}/update", containers::update)
        .get("/containers/{id}/changes", containers::changes)
        .get("/containers/{id}/stats", stats::stats)
        .post("/containers/{id}/wait", containers::wait)
        .post("/containers/{id}/attach", attach::attach)
        .get("/containers/{id}/attach/ws", websocket::attach)
        .get("/containers/{id}/logs", attach::logs)
        .head("/containers/{id}/archive", archive::stat)
        .get("/containers/{id}/archive", archive::get)
        .put("/containers/{id}/archive", archive::put)
        .get("/containers/{id}/export", archive::export)
        .post("/commit", new_images::commit)
        .post("/containers/{id}/exec", exec::create)
        .post("/exec/{id}/start", exec::start)
        .post("/exec/{id}/resize", exec::resize)
        .get("/exec/{id}/json", exec::inspect)
}

fn image_routes() -> Routes {
    Routes::new()
        .get("/images/json", images::list)
        .post("/images/create", images::create)
        .post("/images/prune", images::prune)
        .get("/images/get", image_archives::save_several)
        .post("/images/load", image_archives::load)
        .get("/images/search", registries::search)
        .all_of(
            "GET",
            "/distribution/{*name}",
            &["/distribution/{name}/json"],
            registries::distribution,
        )
        .get("/dctl/manifest/{*name}", registries::manifest)
        .all_of(
            "GET",
            "/images/{*name}",
            &[
                "/images/{name}/json",
                "/images/{name}/history",
                "/images/{name}/get",
            ],
            images::get,
        )
        .all_of(
            "POST",
            "/images/{*name}",
            &["/images/{name}/push", "/images/{name}/tag"],
            images::post,
        )
        .all_of(
            "DELETE",
            "/images/{*name}",
            &["/images/{name}"],
            images::remove,
        )
}

fn swarm_routes() -> Routes {
    let routes = Routes::new()
        .get("/swarm", swarm::manager)
        .post("/swarm/init", swarm::init)
        .post("/swarm/join", swarm::init)
        .post("/swarm/leave", swarm::leave)
        .post("/swarm/update", swarm::update)
        .get("/swarm/unlockkey", swarm::manager)
        .post("/swarm/unlock", swarm::create)
        .get("/nodes", swarm::list)
        .get("/nodes/{id}", swarm::manager)
        .delete("/nodes/{id}", swarm::manager)
        .post("/nodes/{id}/update", swarm::update_node)
        .get("/services", swarm::list)
        .post("/services/create", swarm::create)
        .get("/services/{id}", swarm::manager)
        .delete("/services/{id}", swarm::manager)
        .post("/services/{id}/update", swarm::update_service)
        .get("/services/{id}/logs", swarm::logs);
    routes
        .get("/tasks", swarm::list)
        .get("/tasks/{id}", swarm::manager)
        .get("/tasks/{id}/logs", swarm::logs)
        .get("/secrets", swarm::list)
        .post("/secrets/create", swarm::create)
        .get("/secrets/{id}", swarm::manager)
        .delete("/secrets/{id}", swarm::manager)
        .post("/secrets/{id}/update", swarm::update_secret)
        .get("/configs", swarm::list)
        .post("/configs/create", swarm::create)
        .get("/configs/{id}", swarm::manager)
        .delete("/configs/{id}", swarm::manager)
        .post("/configs/{id}/update", swarm::update_config)
}

fn plugin_routes() -> Routes {
    Routes::new()
        .get("/plugins", plugins::list)
        .get("/plugins/privileges", plugins::bring)
        .post("/plugins/create", plugins::bring)
        .post("/plugins/pull", plugins::bring)
        .all_of(
            "GET",
            "/plugins/{*name}",
            &["/plugins/{name}/json"],
            plugins::one,
        )
        .all_of(
            "POST",
            "/plugins/{*name}",
            &[
                "/plugins/{name}/enable",
                "/plugins/{name}/disable",
                "/plugins/{name}/push",
                "/plugins/{name}/set",
                "/plugins/{name}/upgrade",
            ],
            plugins::one,
        )
        .all_of(
            "DELETE",
            "/plugins/{*name}",
            &["/plugins/{name}"],
            plugins::one,
        )
}

fn machine_routes() -> Routes {
    Routes::new()
        .get("/dctl/machine", machine::status)
        .patch("/dctl/machine", machine::change)
        .delete("/dctl/machine", machine::remove)
        .post("/dctl/machine/start", machine::start)
        .post("/dctl/machine/stop", machine::stop)
        .post("/dctl/machine/restart", machine::restart)
        .post("/dctl/machine/reset", machine::reset)
        .get("/dctl/machine/logs", machine::logs)
        .post("/dctl/machine/shell", machine::shell)
        .post("/dctl/engine/stop", machine::stop_engine)
}
