//! How a container's health is found out.

use bollard_stubs::models::HealthConfig;
use clap::Args;

use crate::{failure::Failure, options::duration::duration};

/// Health check of a new container.
#[derive(Debug, Args)]
pub(super) struct HealthOptions {
    /// Command to run to check health
    #[arg(long, value_name = "COMMAND")]
    health_cmd: Option<String>,
    /// Time between checks, as 1m30s
    #[arg(long, value_name = "DURATION", value_parser = duration, allow_hyphen_values = true)]
    health_interval: Option<i64>,
    /// Consecutive failures that make it unhealthy
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    health_retries: Option<i64>,
    /// Time between checks during the start period
    #[arg(long, value_name = "DURATION", value_parser = duration, allow_hyphen_values = true)]
    health_start_interval: Option<i64>,
    /// Time to start in, before failures count
    #[arg(long, value_name = "DURATION", value_parser = duration, allow_hyphen_values = true)]
    health_start_period: Option<i64>,
    /// The longest that a check may take
    #[arg(long, value_name = "DURATION", value_parser = duration, allow_hyphen_values = true)]
    health_timeout: Option<i64>,
    /// Disable the image's health check
    #[arg(long)]
    no_healthcheck: bool,
}

impl HealthOptions {
    /// The health check, if anything was said about it.
    ///
    /// # Errors
    /// When the options contradict each other.
    pub(super) fn check(&self) -> Result<Option<HealthConfig>, Failure> {
        let numbers = [
            ("--health-interval", self.health_interval),
            ("--health-timeout", self.health_timeout),
            ("--health-retries", self.health_retries),
            ("--health-start-period", self.health_start_period),
            ("--health-start-interval", self.health_start_interval),
        ];
        // An empty command and a zero are the image's: nothing is said.
        let command = self.health_cmd.as_ref().filter(|text| !text.is_empty());
        let said = command.is_some() || numbers.iter().any(|(_, number)| number.unwrap_or(0) != 0);
        if self.no_healthcheck {
            if said {
                return Err(Failure::new(
                    "--no-healthcheck conflicts with --health-* options",
                ));
            }
            return Ok(Some(HealthConfig {
                test: Some(vec!["NONE".to_owned()]),
                ..HealthConfig::default()
            }));
        }
        if let Some((name, _)) = numbers.iter().find(|(_, number)| number.unwrap_or(0) < 0) {
            return Err(Failure::new(format!("{name} cannot be negative")));
        }
        Ok(said.then(|| HealthConfig {
            test: command.map(|command| vec!["CMD-SHELL".to_owned(), command.clone()]),
            interval: self.health_interval,
            timeout: self.health_timeout,
            retries: self.health_retries,
            start_period: self.health_start_period,
            start_interval: self.health_start_interval,
        }))
    }
}
